"""The cluster of the rig: jobs of an ordinary user, on nodes that are not this machine."""

from __future__ import annotations

import time

import pytest

from . import Slurm, User


@pytest.fixture
def person(slurm: Slurm, user: User) -> User:
    user.knows(slurm.hosts)
    return user


def test_a_job_runs_on_both_nodes_as_who_asked_for_it(slurm: Slurm, person: User) -> None:
    script = "hostname; id -u; ip -o link | cut -d: -f2 | cut -d@ -f1; cd ~ && touch seen-$(hostname)"
    done = person.run(["srun", "--nodes=2", "--label", "sh", "-c", script], env=slurm.environment, timeout=60)
    lines = done.stdout.splitlines()
    assert {line.split(": ")[1].strip() for line in lines} == {"n1", "n2", str(person.uid), "eth0", "lo"}
    assert {path.name for path in person.home.iterdir()} == {"seen-n1", "seen-n2"}


def test_a_node_reaches_the_login_node_and_nothing_beyond(slurm: Slurm, person: User) -> None:
    routes = person.run(["srun", "sh", "-c", "ip route; getent hosts login"], env=slurm.environment, timeout=60).stdout
    assert "default" not in routes
    assert "login" in routes


def test_a_job_that_is_cancelled_is_gone(slurm: Slurm, person: User) -> None:
    wrap = ["sbatch", "--parsable", "--output=/dev/null", "--wrap=setsid sleep 1000 & sleep 1000"]
    job = person.run(wrap, env=slurm.environment, timeout=60).stdout.strip()
    for _ in range(600):
        if any("sleep 1000" in line for line in person.processes().values()):
            break
        time.sleep(0.1)
    else:
        pytest.fail(person.run(["squeue", "--long"], env=slurm.environment).stdout)
    person.run(["scancel", job], env=slurm.environment)
    queue = ["squeue", "--noheader"]
    for _ in range(600):
        left = person.run(queue, env=slurm.environment).stdout
        if not left and not person.processes():
            break
        time.sleep(0.1)
    assert (person.processes(), left) == ({}, "")

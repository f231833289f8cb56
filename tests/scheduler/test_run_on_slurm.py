"""`hpcbinder run --on slurm`: an ordinary user's jobs in an image, on the nodes of a real Slurm."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from waiting import eventually

from hpcbinder.catalog import Catalog
from hpcbinder.model import Entry
from rig import Apptainer, Slurm, User

SHOW = "import json, os, socket; print(json.dumps([socket.gethostname(), os.getcwd(), dict(os.environ)]))"


class Person:
    """Somebody on the login node, with a store that has one image."""

    def __init__(self, user: User, slurm: Slurm, apptainer: Apptainer, image: Entry) -> None:
        self.user = user
        self.store = user.home / "store"
        self.environ = {**slurm.environment, "PATH": f"{apptainer.bin}:/usr/bin:/bin"}
        catalog = Catalog(self.store)
        with catalog.temporary() as place:
            folder = place / "image"
            folder.mkdir()
            shutil.copy(image.formats["squashfs"], folder / "image.squashfs")
            catalog.add(dataclasses.replace(image, formats={"squashfs": "image.squashfs"}), folder)
        user.own(self.store)
        self.work = user.home / "work"
        self.work.mkdir()
        user.own(self.work)

    def command(self, *arguments: str) -> list[str]:
        hpcbinder = [sys.executable, "-B", "-m", "hpcbinder", "--store", str(self.store)]
        return [*hpcbinder, "run", "--on", "slurm", *arguments]

    def run(self, *arguments: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments)
        return self.user.run(command, env={**self.environ, **env}, cwd=self.work, timeout=120, check=check)

    def queue(self) -> str:
        """The jobs of this person's that are there."""
        return self.user.run(["squeue", "--noheader", "--me", "--format=%j %T"], env=self.environ).stdout


@pytest.fixture
def person(user: User, slurm: Slurm, apptainer: Apptainer, small_image: Entry) -> Iterator[Person]:
    user.knows(slurm.hosts)
    yield Person(user, slurm, apptainer, small_image)


def test_a_command_runs_in_the_image_on_a_node(person: Person) -> None:
    done = person.run("--partition", "long", "--cpus-per-task", "2", "small", "--", "python", "-c", SHOW, SECRET="x")
    host, cwd, environ = json.loads(done.stdout)
    assert host in ("n1", "n2")
    assert cwd == str(person.work)
    assert environ["IMAGE_ID"] == "small"
    assert environ["ENTERED"] == "yes"
    assert environ["SLURM_JOB_PARTITION"] == "long"
    assert environ["SLURM_CPUS_PER_TASK"] == "2"
    assert environ["SLURM_JOB_NAME"].startswith("hpcbinder-small-0123456789ab-")
    assert "SECRET" not in environ
    assert list((person.store / "tmp").iterdir()) == []


def test_tasks_on_both_nodes(person: Person) -> None:
    script = "import os, socket; print(os.environ['SLURM_PROCID'], socket.gethostname())"
    done = person.run("--ntasks", "4", "--nodes", "2", "small", "--", "python", "-c", script)
    ranks = dict(line.split(": ")[1].split() for line in done.stdout.splitlines())
    assert sorted(ranks) == ["0", "1", "2", "3"]
    assert set(ranks.values()) == {"n1", "n2"}


def test_the_command_s_status_and_output_are_the_job_s(person: Person) -> None:
    done = person.run("small", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert "err\n" in done.stderr


def test_what_the_site_says_counts_where_nothing_else_does(person: Person) -> None:
    show = ("small", "--", "sh", "-c", "echo $SLURM_JOB_PARTITION")
    assert person.run(*show, HPCBINDER_SLURM_PARTITION="long").stdout == "long\n"
    assert person.run("--partition", "debug", *show, HPCBINDER_SLURM_PARTITION="long").stdout == "debug\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_of_a_job_whose_starter_is_gone(person: Person, number: int) -> None:
    command = person.command("small", "--", "sh", "-c", "echo started; sleep 1000")
    process = person.user.popen(command, env=person.environ, cwd=person.work)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    os.kill(process.pid, number)
    process.wait(60)
    assert eventually(lambda: not person.queue()), person.queue()
    assert eventually(lambda: not person.user.processes()), person.user.processes()


def test_an_srun_that_is_killed_leaves_no_allocation(person: Person) -> None:
    command = person.command("small", "--", "sh", "-c", "echo started; sleep 1000")
    process = person.user.popen(command, env=person.environ, cwd=person.work)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    for running, line in person.user.processes().items():
        if "srun --job-name" in line:
            running.signal(signal.SIGKILL)
    assert process.wait(60) != 0
    assert eventually(lambda: not person.queue()), person.queue()
    assert eventually(lambda: not person.user.processes()), person.user.processes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--partition", "nowhere"), "invalid partition"),
        (("--partition", "debug\n#SBATCH --uid=0"), "is not the name of a partition"),
        (("--mpi", "../x"), "--mpi is the name of a plugin"),
        (("--ntasks", "0"), "a job cannot have 0 tasks"),
    ],
)
def test_what_no_job_can_be(person: Person, arguments: tuple[str, ...], message: str) -> None:
    done = person.run(*arguments, "small", "--", "true", check=False)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert person.queue() == ""


def test_a_job_wants_a_command_and_its_options_a_job(person: Person) -> None:
    done = person.run("small", check=False)
    assert (done.returncode, "a job needs a command" in done.stderr) == (2, True)
    command = [word for word in person.command("--ntasks", "2", "small", "--", "true") if word not in ("--on", "slurm")]
    done = person.user.run(command, env=person.environ, cwd=person.work, check=False)
    assert (done.returncode, "add --on slurm" in done.stderr) == (2, True)

"""What is submitted to PBS and to LSF, and how their answers are read.

Neither can be had for tests: nothing here runs a job. Scripts are compared with ones that were written down by their
manuals, answers are as the manuals print them.
"""

from __future__ import annotations

import asyncio
import subprocess
import types
from pathlib import Path
from typing import Any

import pytest
from batchspawner import JobStatus

from hpcbinder.errors import UsageError
from hpcbinder.jupyterhub import CondorSpawner, LsfSpawner, PBSSpawner
from hpcbinder.jupyterhub.account import Account
from hpcbinder.scheduler import Resources

RESOURCES = Resources(cpus=4, memory="8G", time="2:00:00", gpus="1", partition="gpu", account="phys")
FOLDER = "/home/alice/.local/state/hpcbinder/servers/jupyter-default-e3b0c4~abcdefgh"
LOG = "/home/alice/.local/state/hpcbinder/servers/jupyter-default-e3b0c4.log"
COMMAND = ["/usr/bin/python3", "-I", "-S", f"{FOLDER}/launch.py", "--server"]
START = f"exec /usr/bin/python3 -I -S '{FOLDER}/launch.py' --server\n"


def test_pbs() -> None:
    assert PBSSpawner().job_script(RESOURCES, COMMAND, LOG) == (
        f"""\
#!/bin/sh
#PBS -N jupyter-{NAME}
#PBS -j oe
#PBS -o {LOG}
#PBS -m n
#PBS -r n
#PBS -l select=1:ncpus=4:mem=8192mb:ngpus=1
#PBS -l walltime=2:00:00
#PBS -q gpu
#PBS -A phys
"""
        + START
    )


def test_lsf() -> None:
    assert LsfSpawner().job_script(RESOURCES, COMMAND, LOG) == (
        f"""\
#!/bin/sh
#BSUB -J jupyter-{NAME}
#BSUB -o {LOG}
#BSUB -rn
#BSUB -cwd /
#BSUB -n 4
#BSUB -R "span[hosts=1]"
#BSUB -R "rusage[mem=8192MB/host]"
#BSUB -W 120
#BSUB -q "gpu"
#BSUB -P phys
#BSUB -gpu "num=1"
"""
        + START
    )


NAME = "8fb208"
"""Of the person's default server; at most 15 characters in all, which the oldest PBS takes."""


def test_lines_of_the_site_stand_among_the_scheduler_s() -> None:
    script = PBSSpawner(script_lines=["#PBS -l place=excl"]).job_script(Resources(), COMMAND, LOG)
    lines = script.splitlines()
    assert lines.index("#PBS -l place=excl") == len(lines) - 2
    assert all(line.startswith("#") for line in lines[:-1])


@pytest.mark.parametrize("spawner", [PBSSpawner, LsfSpawner])
def test_what_a_script_runs_is_words_whatever_is_in_them(spawner: Any, tmp_path: Path) -> None:
    words = ["/bin/echo", f"$(touch {tmp_path}/x)", "a\nb", "#PBS -q x", "'\"", "`id`"]
    script = spawner().job_script(Resources(), words, LOG)
    said = subprocess.run(["/bin/sh"], input=script, capture_output=True, text=True, check=True).stdout
    assert said == " ".join(words[1:]) + "\n"
    assert not (tmp_path / "x").exists()
    # Of the lines that a scheduler reads none is one of these words.
    head = script.split("exec ", 1)[0]
    assert all(word not in head for word in words)


@pytest.mark.parametrize("spawner", [PBSSpawner, LsfSpawner, CondorSpawner])
@pytest.mark.parametrize(
    "path", ["/home/a b/log", "/home/a\n#PBS -q x", "host:/log", "/home/$(id)", '/a"', "/a,b", "log"]
)
def test_a_path_that_a_scheduler_would_read_otherwise_is_refused(spawner: Any, path: str) -> None:
    with pytest.raises(UsageError):
        spawner().job_script(Resources(), COMMAND, path)


def test_htcondor_s_description_has_no_environment_and_one_job() -> None:
    lines = CondorSpawner().job_script(Resources(cpus=2, memory="1G"), COMMAND, LOG).splitlines()
    assert f'arguments = "-I -S {FOLDER}/launch.py --server"' in lines
    assert "getenv = False" in lines
    assert [line for line in lines if line.startswith("queue")] == ["queue"]
    assert not any(line.startswith("environment") for line in lines)


# qstat(1B), -f of OpenPBS 22.05.
QSTAT = """\
Job Id: 1234.pbs01
    Job_Name = jupyter-8fb208
    Job_Owner = alice@login1
    job_state = {}
    exec_host = node-7.cluster/0*4+node-8.cluster/0*4
    comment = Not Running: Insufficient amount of resource: ncpus
"""


@pytest.mark.parametrize(
    ("word", "phase"), [("Q", "pending"), ("H", "pending"), ("R", "running"), ("E", "running"), ("F", ""), ("X", "")]
)
def test_states_of_pbs(word: str, phase: str) -> None:
    spawner = PBSSpawner(job_status=QSTAT.format(word))
    assert phase_of(spawner) == phase
    assert (spawner.state_gethost(), spawner.state_getowner()) == ("node-7.cluster", "alice")


@pytest.mark.parametrize(
    ("said", "phase", "node"),
    [
        ("PEND -", "pending", "-"),
        ("PSUSP -", "pending", "-"),
        ("RUN node7", "running", "node7"),
        ("RUN 4*node7:4*node8", "running", "node7"),
        ("USUSP node7", "running", "node7"),
        ("DONE node7", "", "node7"),
        ("EXIT -", "", "-"),
        ("UNKWN node7", "unknown", "node7"),
        ("", "", ""),
        ("Job <12> is not found", "", "<12>"),
    ],
)
def test_states_of_lsf(said: str, phase: str, node: str) -> None:
    spawner = LsfSpawner(job_status=said)
    assert (phase_of(spawner), spawner.state_gethost()) == (phase, node)


@pytest.mark.parametrize(
    ("spawner", "said"),
    [
        (PBSSpawner, "Connection refused\nqstat: cannot connect to server pbs01 (errno=15010)"),
        (LsfSpawner, "LSF is down. Please wait ..."),
        (CondorSpawner, "-- Failed to fetch ads from: <10.0.0.1:9618> : submit"),
    ],
)
def test_a_scheduler_that_does_not_answer_has_not_ended_the_job(spawner: Any, said: str) -> None:
    assert phase_of(spawner(job_status=said)) == "unknown"


@pytest.mark.parametrize("spawner", [PBSSpawner, LsfSpawner, CondorSpawner])
def test_a_question_that_cannot_be_put_has_not_ended_the_job(spawner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account("alice", "/home/alice", "/bin/sh", (), {"PATH": "/usr/bin:/bin"}, "/usr/bin/python3")
    monkeypatch.setattr(spawner, "account", lambda self: account)
    asking = spawner(job_id="12", exec_prefix="", batch_query_cmd="/no/such/program {job_id}")
    asking.user = types.SimpleNamespace(name="alice")
    assert asyncio.run(asking.query_job_status()) == JobStatus.UNKNOWN
    # One that is put and not known is another thing.
    asking.batch_query_cmd = "/bin/sh -c 'echo unknown job {job_id} >&2; exit 1'"
    assert asyncio.run(asking.query_job_status()) == JobStatus.NOTFOUND


def phase_of(spawner: Any) -> str:
    """As batchspawner asks (`query_job_status`)."""
    for phase in ("running", "pending", "unknown"):
        if getattr(spawner, f"state_is{phase}")():
            return phase
    return ""


def test_numbers_of_jobs() -> None:
    # A command that is told the server of a number asks that server.
    assert PBSSpawner().parse_job_id("1234.pbs01") == "1234"
    for said in ("1234@elsewhere", "1234.pbs01@elsewhere", "1234[]", "-x", ""):
        assert PBSSpawner().parse_job_id(said) == ""
    said = "Project phys has 100 hours left\nJob <1815> is submitted to default queue <normal>."
    assert LsfSpawner().parse_job_id(said) == "1815"
    assert LsfSpawner().parse_job_id("Job not submitted.") == ""

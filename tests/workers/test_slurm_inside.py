"""Slurm's commands inside a container that has none, on the login node of a real Slurm."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from on_the_login_node import Inside
from waiting import eventually

LOOK = """
command -v squeue
squeue --me --noheader; echo "squeue $?"
squeue --no-such-option 2>/dev/null; echo "wrong $?"
script='#!/bin/sh\\necho "$SLURM_JOB_PARTITION" "${JUPYTERHUB_API_TOKEN:-none}"\\n'
printf "$script" | sbatch --parsable --partition=long -o told
sbatch --wrap=true --parsable -o /dev/null >number; echo "wrapped $?"
srun true 2>/dev/null; echo "srun $?"
"""
WORKERS = """
command -v squeue || echo no squeue
python -c 'from hpcbinder_workers import jobs; print(jobs())'
"""
OFF = """
echo "[$HPCBINDER_HELPER]"
command -v squeue || echo no squeue
python -c 'import hpcbinder_workers' 2>&1 | grep Error
"""
WAIT = 'echo "$HPCBINDER_HELPER"; sleep 1000'


def test_commands(inside: Inside) -> None:
    where, *seen, number, wrapped, srun = inside.run(LOOK)
    assert where.endswith("/bin/squeue")
    assert not Path(where).exists()
    assert seen == ["squeue 0", "wrong 1"]
    assert number.isdigit()
    assert (wrapped, srun) == ("wrapped 0", "srun 127")
    told = inside.user.home / "told"
    assert eventually(lambda: told.exists() and bool(told.read_text()))
    assert told.read_text() == "long none\n"


@pytest.mark.parametrize("runtime", ["apptainer", "charliecloud"])
def test_workers_alone(request: pytest.FixtureRequest, inside: Inside, runtime: str) -> None:
    request.getfixturevalue(runtime)
    assert inside.run(WORKERS, runtime, HPCBINDER_SLURM_INSIDE="workers") == ["no squeue", "[]"]


def test_nothing(inside: Inside) -> None:
    seen = inside.run(OFF, HPCBINDER_SLURM_INSIDE="off")
    assert seen == ["[]", "no squeue", "ModuleNotFoundError: No module named 'hpcbinder_workers'"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_helper_ends_with_whom_it_helps(inside: Inside, number: int) -> None:
    process = inside.user.popen(inside.command(WAIT), env=inside.environ)
    assert process.stdout is not None
    socket = Path(process.stdout.readline().strip())
    assert socket.is_socket()
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    process.send_signal(number)
    process.wait(60)
    assert eventually(lambda: not inside.user.processes()), inside.user.processes()
    assert not socket.parent.exists()

"""Job arrays of Slurm: one command many times, told which time it is by SLURM_ARRAY_TASK_ID."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.errors import RunError
from hpcbinder.scheduler.amounts import seconds
from hpcbinder.scheduler.resources import Resources
from hpcbinder.text import one_line

_SECONDS = 60
"""A controller under load answers late; one that is gone not at all."""
WARNING = signal.SIGUSR1
"""What a task gets when its time is nearly over."""
_BEFORE = 30
"""Seconds before that; Slurm may be a minute early (sbatch(1), --signal)."""
_LONG = 300
"""Seconds: a shorter job would lose too much of its time by a warning."""
_NOT_FOR_JOBS = re.compile(
    r"(SLURM|SLURMD|SBATCH|SRUN|SALLOC)_(?!(CONF|JWT)\b).*|JUPYTERHUB_.*|CONFIGPROXY_.*|JPY_.*|HPCBINDER_TASK"
)
"""What belongs to the job that we are in, would be taken for options (sbatch(1), "Input environment variables"), or is
a secret of the server we run below."""
_SCRIPT = """#!/bin/sh
exec >>"$1/log/$SLURM_ARRAY_TASK_ID.log" 2>&1 && cd -- "$2" && shift 2 && exec "$@"
"""
"""The one job script there is: what it runs are its arguments."""


@dataclass(frozen=True)
class TaskState:
    """What Slurm says of a task.

    Attributes:
        state: `PENDING`, `RUNNING`, `COMPLETED`, `TIMEOUT`, … (squeue(1), "Job state codes").
        reason: Why it waits or ended so; "" for none.
    """

    state: str
    reason: str = ""

    @property
    def waits(self) -> bool:
        return self.state in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")

    @property
    def runs(self) -> bool:
        return self.state in ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT")


class Arrays:
    """The Slurm that the environment leads to.

    Args:
        environ: PATH says where its commands are, SLURM_CONF perhaps which cluster is meant.

    Raises:
        RunError: There is none.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {name: value for name, value in environ.items() if not _NOT_FOR_JOBS.fullmatch(name)}
        path = self._environ.get("PATH", os.defpath)
        programs = {name: shutil.which(name, path=path) for name in ("sbatch", "squeue", "scancel")}
        for name, found in programs.items():
            if found is None:
                raise RunError(
                    f"there is no Slurm here: {name} is not on PATH", hint="run this on a login node of the cluster"
                )
        self._programs = {name: str(found) for name, found in programs.items()}

    def submit(
        self,
        resources: Resources,
        command: Sequence[str],
        *,
        count: int,
        at_once: int,
        name: str,
        cwd: Path,
        folder: Path,
    ) -> str:
        """Put a command into the queue `count` times.

        Args:
            command: Program and arguments of each task.
            at_once: How many may run at the same time, 0 for as many as there is room for.
            name: Of the job.
            cwd: Where the command runs.
            folder: Absolute, seen by the nodes; what a task prints is kept in `log/NUMBER.log` there.

        Returns:
            The job's id.

        Raises:
            RunError: Slurm does not take it.
        """
        limit = f"%{at_once}" if at_once else ""
        options = [
            "--parsable",
            f"--job-name={name}",
            f"--array=0-{count - 1}{limit}",
            # Slurm would take a folder's name for a pattern (sbatch(1), "filename pattern").
            "--chdir=/",
            "--output=/dev/null",
            *resources.options(),
        ]
        if not resources.time or seconds(resources.time) >= _LONG:
            options.append(f"--signal=B:{WARNING.name.removeprefix('SIG')}@{_BEFORE}")
        script = folder / "job.sh"
        try:
            script.write_text(_SCRIPT)
        except OSError as error:
            raise RunError(f"the job cannot be kept: {error.strerror}", where=one_line(str(folder))) from None
        said = self._ask("sbatch", *options, str(script), str(folder), str(cwd), *command)
        # sbatch(1), --parsable: the id, behind a ; the cluster's name.
        job = said[-1].partition(";")[0].strip() if said else ""
        if not job.isdecimal():
            raise RunError("sbatch: it does not say which job it is")
        return job

    def states(self, job: str) -> dict[int, TaskState]:
        """What is known of a job's tasks; of those that ended, only for a while (slurm.conf(5), MinJobAge).

        Raises:
            RunError: Slurm does not answer.
        """
        wanted = ["--array", "--noheader", "--states=all", f"--jobs={_checked(job)}", "--format=%K|%T|%r"]
        try:
            lines = self._ask("squeue", *wanted)
        except RunError as error:
            if "Invalid job id" in error.message:
                return {}
            raise
        found = {}
        for line in lines:
            number, _, rest = line.strip().partition("|")
            state, _, reason = rest.partition("|")
            if number.isdecimal() and state:
                found[int(number)] = TaskState(one_line(state, 40), "" if reason == "None" else one_line(reason, 80))
        return found

    def cancel(self, job: str) -> None:
        """End a job, in the queue as well as on nodes; one that has ended already is no error.

        Raises:
            RunError: Slurm does not answer.
        """
        self._ask("scancel", "--quiet", _checked(job))

    def _ask(self, program: str, *arguments: str) -> list[str]:
        try:
            done = subprocess.run(
                [self._programs[program], *arguments],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            raise RunError(f"Slurm does not answer: {one_line(str(error), 200)}") from None
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            text = one_line(" ".join(lines[-1:]), 300)
            hint = None
            if "array" in text:
                hint = "the cluster takes no array that large (MaxArraySize): split the table"
            raise RunError(f"{program}: {text.removeprefix(f'{program}: ').removeprefix('error: ')}", hint=hint)
        return done.stdout.splitlines()


def _checked(job: str) -> str:
    if not job.isdecimal() or not job.isascii():
        raise RunError("not the id of a job")
    return job

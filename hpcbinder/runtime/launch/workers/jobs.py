"""The jobs that workers of one notebook run in: they end with it.

A job is submitted by sbatch, so that it ends with what runs in it, whatever becomes of who submitted it. What it is
told lies in a folder of the person's that all nodes see, closed to everybody else; the command line has its name alone.
"""

# Paths are text here: they become words of a command line.
# ruff: noqa: PTH102, PTH104, PTH112, PTH118, PTH120, PTH123

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..asked import OF_THE_JOB, job_options
from ..private import OpenToOthersError
from ..state import make_state_folder
from ..values import Helper, LaunchError
from .kinds import Worker

_SECONDS = 60
"""A controller under load answers late; one that is gone not at all."""
_MOST = 1000
_LAST_WORDS = 2000
_KEPT = 30 * 86400
"""Seconds for which a folder stays that nobody took away."""

_START = '''"""Starts workers of the image that launch.json describes. Made by hpcbinder, which takes it away again."""

import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here))

from hpcbinder_launch.workers.node import main

sys.exit(main(here, sys.argv[1:]))
'''


def controller(environ: Mapping[str, str]) -> str:
    """Name or address of the cluster's controller, "" where it is not known.

    Raises:
        LaunchError: It is not told.
    """
    program = shutil.which("scontrol", path=environ.get("PATH", os.defpath))
    if program is None:
        return ""
    command = [program, "show", "config"]
    try:
        done = subprocess.run(
            command, env=dict(environ), capture_output=True, text=True, errors="replace", timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"scontrol: {error}") from error
    # `SlurmctldHost[0] = NAME(ADDRESS)`, or the name alone.
    settings = (line.partition("=") for line in done.stdout.splitlines())
    host = next((value.strip() for name, _, value in settings if name.startswith("SlurmctldHost[0]")), "")
    return host.rpartition("(")[2].rstrip(")")


def start_words(helper: Helper) -> list[str]:
    """The command line, of a node, behind which the name of a worker stands, or `--in-image` and a command."""
    python = getattr(sys, "_base_executable", "") or sys.executable  # nodes need not have a virtual environment of here
    return [python, "-I", "-S", os.path.join(helper.shared, "launch.py")]


class WorkerJobs:
    """Jobs of one notebook's workers, of one name.

    Args:
        helper: What they are run by, and where.
    """

    def __init__(self, helper: Helper) -> None:
        self._helper = helper
        self._name = f"hpcbinder-workers-{secrets.token_hex(6)}"
        self._told: dict[str, str] = {}
        self._over = False
        self._lock = threading.Lock()

    def launcher(self) -> None:
        """See to it that jobs find what they are started by.

        Raises:
            LaunchError: Others could put something in its place.
            OSError: It cannot be written.
        """
        folder = self._helper.shared
        if not folder:
            raise LaunchError("no workers are started: there is no place for what starts them that stays yours")
        if os.path.isdir(folder):
            return
        place = os.path.dirname(folder)
        try:
            # By path, and later, Python opens the launcher.
            make_state_folder(place)
        except OpenToOthersError as error:
            raise LaunchError(f"no workers are started: {error}") from None
        _sweep(place)
        partial = f"{folder}.partial"
        os.mkdir(partial, 0o700)
        package = os.path.join(partial, "hpcbinder_launch")
        shutil.copytree(
            os.path.dirname(os.path.dirname(__file__)), package, ignore=shutil.ignore_patterns("__pycache__")
        )
        # Workers have no helper of their own.
        description = {name: value for name, value in self._helper.description.items() if name != "slurm"}
        description["environment"] = [*description["environment"], *OF_THE_JOB]
        for name, text in (("launch.py", _START), ("launch.json", json.dumps(description))):
            with open(os.path.join(partial, name), "w", encoding="utf-8") as file:
                file.write(text)
        os.rename(partial, folder)

    def start(self, worker: Worker, asked: Mapping[str, Any]) -> str:
        """Submit a job; returns its number.

        Raises:
            LaunchError: Slurm does not take it, or others could change what starts it.
            OSError: The folder cannot be written.
        """
        with self._lock:
            if self._over or len(self._told) >= _MOST:
                raise LaunchError("no more workers are started" if self._over else f"{_MOST} jobs are enough")
            self.launcher()
            told = secrets.token_hex(8)
            path = os.path.join(self._helper.shared, told)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump({"argv": worker.argv, "secrets": dict(worker.secrets)}, file)
            each = [*start_words(self._helper), told]
            if asked["tasks"] > 1:
                cpus = [f"--cpus-per-task={asked['cpus']}"] if asked.get("cpus") else []
                # One that ends leaves the others at work.
                each = ["srun", "--mpi=none", "--kill-on-bad-exit=0", f"--ntasks={asked['tasks']}", *cpus, "--", *each]
            log = f"{path}.log".replace("%", "%%")  # sbatch(1), filename pattern
            answer = self._slurm(
                *("sbatch", "--parsable", "--no-requeue", f"--job-name={self._name}", f"--output={log}"),
                *(*job_options(asked), f"--wrap={shlex.join(each)}"),
            )
            number = answer.strip().partition(";")[0]  # JOB[;CLUSTER]
            if not number.isdigit():
                raise LaunchError(f"sbatch said {ascii(answer)[:200]}")
            self._told[number] = path
            return number

    def states(self) -> list[dict[str, str]]:
        """Every job that was started: number, state, nodes, reason (of waiting), and its last words once it is over.

        Raises:
            LaunchError: Slurm does not answer.
        """
        with self._lock:
            told = dict(self._told)
        if not told:
            return []
        names = ("job", "state", "nodes", "reason")
        lines = self._slurm("squeue", "--noheader", f"--name={self._name}", "--format=%i|%T|%N|%r").splitlines()
        there = {values[0]: values for values in (line.strip().split("|", 3) for line in lines) if len(values) == 4}
        return [
            dict(zip(names, there[number], strict=True), said="")
            if number in there
            else {"job": number, "state": "ENDED", "nodes": "", "reason": "", "said": _end_of(f"{path}.log")}
            for number, path in told.items()
        ]

    def cancel(self, numbers: Sequence[object]) -> None:
        """End jobs, in the queue or at work; those that are not this notebook's workers stay.

        Raises:
            LaunchError: One is no such job, or Slurm does not answer.
        """
        with self._lock:
            known = self._told.keys()
        if not numbers or not all(isinstance(number, str) and number in known for number in numbers):
            raise LaunchError("not a job of this notebook's workers")
        self._slurm("scancel", "--quiet", *map(str, numbers))

    def end(self) -> None:
        """Cancel all of them, and take the folder away."""
        with self._lock:
            self._over = True
        for pause in (0.5, 2.0, 0.0):
            try:
                if self._told:
                    self._slurm("scancel", "--quiet", f"--name={self._name}")
                break
            except LaunchError:
                time.sleep(pause)
        shutil.rmtree(self._helper.shared, ignore_errors=True)

    def _slurm(self, name: str, *arguments: str) -> str:
        program = shutil.which(name, path=self._helper.environ.get("PATH", os.defpath))
        if program is None:
            raise LaunchError(f"there is no {name} here")
        try:
            done = subprocess.run(
                [program, *arguments],
                env=dict(self._helper.environ),
                # A job starts by path where sbatch was. What has a folder of its own is found by its number (`pinned`).
                cwd="/" if "folder" in self._helper.description else self._helper.cwd,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LaunchError(f"{name}: {error}") from error
        if done.returncode:
            raise LaunchError(f"{name}: {' '.join(done.stderr.split())[:500]}")
        return done.stdout


def _sweep(place: str) -> None:
    """Take away what helpers left behind that were killed; a living one's folder is made again when it is wanted."""
    with os.scandir(place) as entries:
        old = [entry.path for entry in entries if time.time() - entry.stat(follow_symlinks=False).st_mtime > _KEPT]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)


def _end_of(path: str) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_WORDS))
            return file.read(_LAST_WORDS).decode(errors="replace")
    except OSError:
        return ""

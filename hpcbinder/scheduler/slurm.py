"""Slurm's commands."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcbinder.errors import RunError
from hpcbinder.scheduler.resources import Resources
from hpcbinder.text import one_line

_SECONDS = 60
"""A controller under load answers late; one that is gone not at all."""

_KINDS = {
    # What an MPI library can talk to its launcher by, the best first. cray_shasta is for Cray's MPICH, which has the
    # same ABI and which a site puts in the image's place; every Slurm lists it, so only a site's default says that it
    # is meant.
    "mpich": ("pmi2", "cray_shasta"),
    "openmpi": ("pmix",),
}


class Slurm:
    """The Slurm that the environment leads to.

    Args:
        environ: PATH says where its commands are, SLURM_CONF perhaps which cluster is meant.

    Raises:
        RunError: There is none.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        path = self._environ.get("PATH", os.defpath)
        srun, scancel, scontrol = (shutil.which(name, path=path) for name in ("srun", "scancel", "scontrol"))
        if srun is None or scancel is None or scontrol is None:
            raise RunError(
                "there is no Slurm here: srun is not on PATH", hint="run this on a login node of the cluster"
            )
        self.srun, self._scancel, self._scontrol = srun, scancel, scontrol

    def cancel(self, name: str) -> tuple[str, ...]:
        """The command line that ends this person's jobs of a name, if there are any."""
        return (self._scancel, "--quiet", f"--name={name}")

    def mpi_plugins(self) -> tuple[str, ...]:
        """What `srun --mpi` can be told here, the site's default first.

        Raises:
            RunError: Slurm does not answer.
        """
        # A heading, then a name a line; before Slurm 21.08 each line begins with `srun: `.
        words = [line.removeprefix("srun:").strip() for line in self._ask(self.srun, "--mpi=list")]
        found = [word for word in words if word.isidentifier()]
        # scontrol(1): lines `Name = value`.
        settings = (line.partition("=") for line in self._ask(self._scontrol, "show", "config"))
        default = next((value.strip() for name, _, value in settings if name.strip() == "MpiDefault"), "")
        return tuple(sorted(found, key=lambda name: name != default))

    def _ask(self, *command: str) -> list[str]:
        try:
            done = subprocess.run(
                command,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RunError(f"Slurm does not answer: {one_line(str(error), 200)}") from None
        lines = (done.stdout + done.stderr).splitlines()
        if done.returncode:
            raise RunError(f"{Path(command[0]).name}: {one_line(' '.join(lines[-1:]), 300)}")
        return lines

    def argv(self, resources: Resources, command: Sequence[str], *, mpi: str, name: str) -> tuple[str, ...]:
        """The command line that runs a command as a job's tasks, and ends with the last of them.

        Args:
            resources: What it asks for.
            command: Program and arguments of each task.
            mpi: What `--mpi` is told.
            name: The job's name.
        """
        return (
            self.srun,
            f"--job-name={name}",
            f"--mpi={mpi}",
            # A rank that dies takes the job along instead of leaving the others to wait for it.
            *(("--kill-on-bad-exit=1", "--label") if resources.tasks > 1 else ()),
            *resources.options(),
            "--",
            *command,
        )


def mpi_kind(abi: str, plugins: Sequence[str], tasks: int) -> str:
    """What the tasks of an image's MPI are told of each other by.

    Args:
        abi: `mpich`, `openmpi`, or "" for an image without MPI.
        plugins: What Slurm offers (`Slurm.mpi_plugins`).
        tasks: How many there are.

    Raises:
        RunError: Slurm offers nothing that this MPI understands: each rank would take itself for the only one.
    """
    if not abi or tasks == 1:
        return "none"
    known = _KINDS.get(abi, ())
    found = next((kind for kind in (*plugins[:1], *known) if kind in known and kind in plugins), None)
    if found is None:
        name = {"mpich": "MPICH", "openmpi": "Open MPI"}.get(abi, abi)
        wanted, there = ", ".join(_KINDS.get(abi, ())), ", ".join(plugins)
        raise RunError(
            f"the image's {name} wants {wanted} from srun, which has {there}: every rank would be rank 0 of 1",
            hint="--mpi NAME chooses one by hand, --mpi none starts tasks that do not know each other",
        )
    return found

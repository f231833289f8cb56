"""Options of commands that run as a job of the batch system."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from hpcbinder.errors import UsageError

if TYPE_CHECKING:
    from hpcbinder.scheduler import Resources

Function = Callable[..., Any]

_OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "tasks": (("-n", "--ntasks"), {"type": int, "metavar": "N", "help": "Processes of the job (1)."}),
    "nodes": (("-N", "--nodes"), {"type": int, "metavar": "N", "help": "Nodes of the job."}),
    "cpus": (("--cpus-per-task",), {"type": int, "metavar": "N", "help": "Cores for each process."}),
    "memory": (("--mem",), {"metavar": "SIZE", "help": "Memory on each node: 4G."}),
    "time": (("--time",), {"metavar": "TIME", "help": "The job's limit: MINUTES, H:MM:SS or D-HH:MM."}),
    "gpus": (("--gpus",), {"metavar": "[TYPE:]N", "help": "GPUs for the job."}),
    "partition": (("--partition",), {"metavar": "NAME", "help": "Partition (slurm.partition)."}),
    "account": (("--account",), {"metavar": "NAME", "help": "Account (slurm.account)."}),
    "qos": (("--qos",), {"metavar": "NAME", "help": "Quality of service (slurm.qos)."}),
    "reservation": (("--reservation",), {"metavar": "NAME", "help": "Reservation."}),
    "constraint": (
        ("--constraint",),
        {"metavar": "FEATURES", "help": "Features that nodes must have (slurm.constraint)."},
    ),
    "mpi": (("--mpi",), {"metavar": "NAME", "help": "What srun --mpi is told (default: by the image's MPI)."}),
}
_CONFIGURED = ("partition", "account", "qos", "constraint")


@dataclass(frozen=True)
class Job:
    """What was said of a job.

    Attributes:
        values: Of `Resources`.
        mpi: What `srun --mpi` is told.
    """

    values: dict[str, Any]
    mpi: str

    def resources(self, configured: object) -> Resources:
        """With what the configuration says (`config.slurm`) where nothing else was said.

        Raises:
            UsageError: A value cannot be meant.
        """
        from hpcbinder.scheduler import Resources

        site = {name: getattr(configured, name) or "" for name in _CONFIGURED}
        return Resources(**{**site, **self.values})


def job_options(function: Function) -> Function:
    """`--on slurm` and what goes with it, as the argument `job`: None without it."""

    @functools.wraps(function)
    def collected(*args: Any, on: str | None, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(f"job_{name}") for name in _OPTIONS}
        said = {name: value for name, value in given.items() if value is not None}
        if on is None and said:
            flag = _OPTIONS[next(iter(said))][0][-1]
            raise UsageError(f"{flag} is about a job", hint="add --on slurm")
        mpi = said.pop("mpi", "auto")
        if not mpi.replace("_", "").isalnum() or not mpi.isascii():
            raise UsageError("--mpi is the name of a plugin, as srun --mpi=list shows them")
        return function(*args, job=None if on is None else Job(said, mpi), **kwargs)

    decorated: Function = collected
    for name, (flags, settings) in reversed(_OPTIONS.items()):
        decorated = click.option(*flags, f"job_{name}", **settings)(decorated)
    return click.option("--on", type=click.Choice(["slurm"]), help="Run it as a job of the batch system.")(decorated)

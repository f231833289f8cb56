"""Whether the processes of an MPI job, each in an image, find each other."""

from __future__ import annotations

from importlib import resources


def mpi_check_argv() -> tuple[str, ...]:
    """The command that finds out, for each process that a launcher starts (`inside/ranks.py` has what it does).

    It is whole, so that an image need not be made for it.
    """
    return ("python", "-c", resources.files("hpcbinder.runtime.inside").joinpath("ranks.py").read_text("utf-8"))

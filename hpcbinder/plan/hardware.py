"""What an image asks of the machine it runs on, read from the packages it gets: which MPI, which GPU."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hpcbinder.errors import DetectError
from hpcbinder.model import Lock

_MPI = (
    # (ABI, Debian packages, PyPI and conda packages). MPICH's ABI is also that of Intel MPI and Cray MPICH
    # (https://www.mpich.org/abi/), which is what lets a site put its own library in.
    (
        "openmpi",
        re.compile(r"openmpi-bin|libopenmpi(-dev|[0-9][a-z0-9]*)|mpi-default-(bin|dev)"),
        re.compile(r"openmpi"),
    ),
    ("mpich", re.compile(r"mpich|libmpich(-dev|[0-9][a-z0-9]*)"), re.compile(r"mpich|impi-rt")),
)
_GPU = (
    (
        "nvidia",
        re.compile(r"nvidia-cuda-(toolkit|dev)"),
        re.compile(
            r"nvidia-cuda-runtime(-.*)?|cupy(-cuda.*)?|jax-cuda.*|cudatoolkit|cuda-cudart|numba-cuda|pycuda|"
            r"tensorflow-gpu|onnxruntime-gpu|pytorch-cuda"
        ),
    ),
    ("rocm", re.compile(r"rocm-.*|libamdhip64-.*"), re.compile(r"cupy-rocm-.*|jax-rocm.*|pytorch-triton-rocm")),
)


def mpi_abi(debian: Iterable[str], locks: Iterable[Lock]) -> str | None:
    """`openmpi` or `mpich`: the ABI that programs of the image are linked for, None if it has no MPI.

    Raises:
        DetectError: Both are asked for: whichever `mpiexec` comes first starts ranks that do not find each other.
    """
    found = _matching(_MPI, debian, locks)
    if len(found) > 1:
        raise DetectError(
            f"two kinds of MPI are asked for, {' and '.join(f'{abi} ({name})' for abi, name in found.items())}",
            hint="programs of one do not work with the launcher of the other: keep one of them",
        )
    return next(iter(found), None)


def gpu_need(debian: Iterable[str], locks: Iterable[Lock]) -> str | None:
    """`nvidia` or `rocm` if packages for it are installed, None if none of the image's packages needs a GPU."""
    return next(iter(_matching(_GPU, debian, locks)), None)


def _matching(
    table: Iterable[tuple[str, re.Pattern[str], re.Pattern[str]]], debian: Iterable[str], locks: Iterable[Lock]
) -> dict[str, str]:
    """What is there -> the first package that says so."""
    system = list(debian)
    python = [name for lock in locks for name in (*(package.name for package in lock.packages), *lock.unresolved)]
    found = {}
    for what, for_debian, for_python in table:
        names = [*filter(for_debian.fullmatch, system), *filter(for_python.fullmatch, python)]
        if names:
            found[what] = names[0]
    return found

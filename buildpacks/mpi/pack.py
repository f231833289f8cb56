"""mpi: scripts and makefiles that call for MPI, where nothing that is installed brings one.

They are no more than a hint (a job script may be of the cluster that its author had): nothing is installed for it, but
the plan says so. What Python packages need is the python pack's to add, and the label is read from what is installed.
"""

from __future__ import annotations

import posixpath
import re

from hpcbinder.plan import DetectError, Draft, Repo

_CALLS = re.compile(
    r"\b(?P<build>mpicc|mpicxx|mpic\+\+|mpif77|mpif90|mpifort|find_package\s*\(\s*MPI\b)|\b(?P<run>mpirun|mpiexec)\b"
)
_NAMES = re.compile(r"(GNU)?[Mm]akefile|CMakeLists\.txt|.*\.(sh|bash|sbatch|slurm|job|pbs|mk|cmake)")
_MPI = re.compile(r"(lib)?(mpich|openmpi)[\w.+-]*|mpi-default-(bin|dev)|impi-rt")
_FILES = 200
"""Files that are looked into at most."""
_LENGTH = 256 << 10
"""Bytes that one may have."""


def plan(repo: Repo, draft: Draft) -> None:
    if _there(repo, draft):
        return
    paths = [item.path for item in repo.files() if _NAMES.fullmatch(posixpath.basename(item.path))]
    found = 0
    for path in paths[:_FILES]:
        if not repo.is_file(path):
            continue
        try:
            text = repo.read_text(path, limit=_LENGTH)
        except DetectError:
            continue
        if (match := _CALLS.search(text)) is None:
            continue
        found += 1
        if found > 3:
            draft.unused(path, "and others: they call for MPI, too")
            return
        line = text.count("\n", 0, match.start()) + 1
        packages = "mpich and libmpich-dev" if match["build"] else "mpich"
        reason = f"line {line} calls {' '.join(match[0].split())}, and nothing brings an MPI"
        draft.unused(path, f"{reason}: {packages} in apt.txt, or mpich in the requirements, would")


def _there(repo: Repo, draft: Draft) -> bool:
    path = repo.config("apt.txt")
    words = repo.read_text(path, utf16=True).split() if path is not None else []
    names = {package.name for lock in draft.locks for package in lock.packages}
    return any(_MPI.fullmatch(word.partition("=")[0]) for word in (*words, *names, *draft.system))

"""Do the processes of an MPI job find each other? `mpiexec -n 4 … python ranks.py`, in an image, with its Python.

A launcher tells each process by variables who it is and how to reach the others (PMI-1 and PMI-2 of MPICH, PMIx). A
library that does not speak the launcher's language takes its process for the only one, or gives up: MPICH's mpiexec and
Open MPI's library make `rank 0 of 1` of each process, Open MPI's mpiexec and MPICH's library end with status 16 (MPICH
5.0, Open MPI 4.1 and 5.0). Says what it found once, for all processes. Exits with 0 if all found each other, else 9.
"""

# Python 3.6 reads this too.
# ruff: noqa: PTH118, UP006, UP035, UP045

import ctypes
import importlib
import os
import signal
import sys
import time
import warnings
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

MISMATCH = 9
"""hpcbinder's "cannot be run"."""

PATIENCE = 2.0
"""Seconds that other processes leave the first one to speak: a launcher ends all when one fails."""

LIMIT = 300.0
"""Seconds that they get to find each other; some wait for ever."""

LIBRARIES = (("libmpi.so.12", "mpich"), ("libmpich.so.12", "mpich"), ("libmpi.so.40", "openmpi"))

NAMES = {"mpich": "MPICH", "openmpi": "Open MPI"}
HEARS = {"mpich": "pmi", "openmpi": "pmix"}


class Launcher(NamedTuple):
    name: str
    speaks: str
    rank: int | None
    size: int | None  # fmt: skip


def launcher(env: Dict[str, str]) -> Optional[Launcher]:
    """What started this process, by the variables it set; None if nothing did."""

    def number(*names: str) -> Optional[int]:
        return next((int(env[name]) for name in names if env.get(name, "").isdigit()), None)

    if "OMPI_COMM_WORLD_SIZE" in env:
        return Launcher("Open MPI's mpiexec", "pmix", number("OMPI_COMM_WORLD_RANK"), number("OMPI_COMM_WORLD_SIZE"))
    if "PALS_RANKID" in env:
        return Launcher("PALS (HPE Cray's mpiexec)", "pmi", number("PALS_RANKID"), number("PMI_SIZE"))
    step = number("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS") if "SLURM_STEP_ID" in env else None
    if "PMI_RANK" in env or "PMI_SIZE" in env:
        # MPICH's mpiexec has Slurm start its proxies, one on each node: a step, but not of these processes.
        name = "srun --mpi=pmi2" if step and step == number("PMI_SIZE") else "mpiexec of MPICH or Intel MPI"
        return Launcher(name, "pmi", number("PMI_RANK"), number("PMI_SIZE"))
    if "PMIX_RANK" in env:
        name = "srun --mpi=pmix" if "slurm" in env.get("PMIX_NAMESPACE", "") else "a launcher that speaks PMIx"
        return Launcher(name, "pmix", number("PMIX_RANK"), step)
    if step:
        return Launcher("srun", "none", number("SLURM_PROCID"), step)
    return None


def by_mpi4py() -> Optional[Tuple[int, int, str, List[str]]]:
    """Rank, size, the library's version and, for rank 0, the machines; None without mpi4py."""
    try:
        # It warns of what is said here in more words.
        warnings.simplefilter("ignore")
        mpi = importlib.import_module("mpi4py.MPI")
    except ImportError:
        return None
    world = mpi.COMM_WORLD
    machines = world.gather(mpi.Get_processor_name(), root=0)
    return world.Get_rank(), world.Get_size(), mpi.Get_library_version(), machines or []


def by_library() -> Optional[Tuple[int, int, str, List[str]]]:
    """The same of the library itself, for images whose programs are not Python's."""
    for folder in (os.path.join(sys.prefix, "lib", ""), ""):
        for file, kind in LIBRARIES:
            try:
                lib = ctypes.CDLL(folder + file, ctypes.RTLD_GLOBAL)
            except OSError:
                continue
            # MPI_COMM_WORLD is a number in the MPICH ABI, the address of a structure in Open MPI.
            world: Any = ctypes.c_int(0x44000000)
            if kind == "openmpi":
                world = ctypes.byref(ctypes.c_char.in_dll(lib, "ompi_mpi_comm_world"))
            rank, size, length = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
            text = ctypes.create_string_buffer(8192)
            lib.MPI_Init(None, None)
            lib.MPI_Comm_rank(world, ctypes.byref(rank))
            lib.MPI_Comm_size(world, ctypes.byref(size))
            lib.MPI_Get_library_version(text, ctypes.byref(length))
            lib.MPI_Finalize()
            return rank.value, size.value, text.value.decode("utf-8", "replace"), []
    return None


def kind_here() -> str:
    """The kind of the library that is there, "" if none is; it is not begun."""
    for folder in (os.path.join(sys.prefix, "lib", ""), ""):
        for file, kind in LIBRARIES:
            try:
                ctypes.CDLL(folder + file)
            except OSError:
                continue
            return kind
    return ""


def kind_of(version: str) -> str:
    return "openmpi" if "Open MPI" in version else "mpich"


def title(version: str) -> str:
    """The version in few words: MPICH has it behind a tab, Open MPI before a comma."""
    line = version.split("\n")[0].split(",")[0]
    return " ".join(line.replace("Version:", "").split())[:80]


def what_to_do(speaks: str, kind: str) -> str:
    mine = "openmpi" if kind == "openmpi" else "mpich"
    other = "mpich" if mine == "openmpi" else "openmpi"
    ways = {
        "openmpi": "Open MPI's mpiexec or srun --mpi=pmix",
        "mpich": "mpiexec of MPICH or Intel MPI, or srun --mpi=pmi2",
    }
    build = f"; or build the image with mpi.abi = {other}" if speaks != "none" else ""
    return f"start it with {ways[mine]}{build}"


def machines_in_words(machines: List[str]) -> str:
    names = sorted(set(machines))
    shown = ", ".join(f"{name} ({machines.count(name)})" for name in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def judge(found: Tuple[int, int, str, List[str]], by: Optional[Launcher]) -> Tuple[int, str]:
    """Exit status and what to say of it."""
    _, size, version, machines = found
    ranks = "{} rank{}".format(size, "s" if size != 1 else "")
    library = title(version)
    if by is None:
        hint = "no launcher started it: mpiexec -n 4 hpcbinder run --mpi-check ID"
        return 0, f"{ranks}, {library}; {hint}"
    if by.size is not None and size != by.size:
        said = "{} processes were started by {}, and each takes itself for one of {}: the image's MPI is {}, which {}"
        does = "was told nothing (--mpi=none)" if by.speaks == "none" else "does not hear this launcher"
        why = said.format(by.size, by.name, size, library, does)
        return MISMATCH, f"{why}; {what_to_do(by.speaks, kind_of(version))}"
    where = f" on {machines_in_words(machines)}" if machines else ""
    return 0, f"{ranks}{where}, {library}, started by {by.name}"


def child(by: Optional[Launcher]) -> int:
    found = by_mpi4py() or by_library()
    if found is None:
        say("the image has no MPI: neither mpi4py nor a library (libmpi.so.12, libmpi.so.40)")
        return MISMATCH
    status, text = judge(found, by)
    if (by.rank if by is not None and by.rank is not None else found[0]) == 0:
        say(text, error=status != 0)
    return status


def say(text: str, error: bool = True) -> None:
    (sys.stderr if error else sys.stdout).write(f"hpcbinder: {text}\n")
    sys.stdout.flush()
    sys.stderr.flush()


def wait(pid: int) -> int:
    """Exit status of a process, 128 and the signal's number if it was killed: by us, if it takes too long."""
    end = time.monotonic() + LIMIT
    done, ended = os.waitpid(pid, os.WNOHANG)
    while not done:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        done, ended = os.waitpid(pid, os.WNOHANG)
    return os.WEXITSTATUS(ended) if os.WIFEXITED(ended) else 128 + os.WTERMSIG(ended)


def main() -> int:
    by = launcher(dict(os.environ))
    # A library that cannot do with its launcher ends its process.
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            status = child(by)
        except BaseException as error:
            say(f"{type(error).__name__}: {error}")
        finally:
            # Not os._exit: MPI is finalized at exit.
            sys.exit(status)
    status = wait(pid)
    first = by is None or by.rank in (None, 0)
    if status not in (0, MISMATCH) and first:
        kind = kind_here()
        said = "the image's MPI ended with status {} as it began, under {}".format(
            status, by.name if by else "no launcher"
        )
        if by is not None and kind and by.speaks not in ("none", HEARS[kind]):
            said += f", which {NAMES[kind]} does not hear; {what_to_do(by.speaks, kind)}"
        say(said)
    if status != 0 and not first:
        time.sleep(PATIENCE)
    return MISMATCH if status else 0


if __name__ == "__main__":
    sys.exit(main())

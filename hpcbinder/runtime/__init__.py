"""Running images: which runtime, and what exactly it is told.

Every consumer (a kernel, `hpcbinder run`, later a spawner or a batch job) asks the same functions. What must also work
without hpcbinder, a registered kernel's start, is the package `launch`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcbinder import contract
from hpcbinder.config import RuntimeConfig, SlurmConfig
from hpcbinder.errors import RunError
from hpcbinder.model import Entry
from hpcbinder.runtime.choose import PLAIN, Choice, mounting, pick_runtime
from hpcbinder.runtime.compression import Compression, choose_compression
from hpcbinder.runtime.describing import describe
from hpcbinder.runtime.kernel import KernelSquashfs, kernel_squashfs
from hpcbinder.runtime.lab import lab_argv, lab_here_argv
from hpcbinder.runtime.launch.asked import OF_THE_JOB, job_options
from hpcbinder.runtime.launch.asked import fault as asked_fault
from hpcbinder.runtime.launch.environment import host_environment
from hpcbinder.runtime.launch.gpu import cuda_of_driver, nvidia_driver, too_old
from hpcbinder.runtime.launch.gpu import resolve as find_gpu
from hpcbinder.runtime.launch.prologue import environment_after
from hpcbinder.runtime.launch.runtimes import PROGRAMS, find
from hpcbinder.runtime.launch.space import OpenToOthersError, Prepared, held
from hpcbinder.runtime.launch.starting import prepare
from hpcbinder.runtime.launch.supervise import supervise
from hpcbinder.runtime.launch.values import Bind, Command, LaunchError, Request, Runtime, parse_bind
from hpcbinder.runtime.launch.values import Image as RuntimeImage
from hpcbinder.runtime.launcher import launcher_files
from hpcbinder.runtime.mounts import apptainer_settings, is_setuid
from hpcbinder.runtime.mpi import mpi_check_argv
from hpcbinder.runtime.needs import gpu_needs, gpu_shortcoming
from hpcbinder.runtime.secluded import Ended, Secluded
from hpcbinder.runtime.sif import inspect
from hpcbinder.runtime.signing import Key, Signer, read_private_key, read_public_key
from hpcbinder.runtime.space import opened_at, own_copy, repository_of, space_of
from hpcbinder.runtime.workshop import ApptainerWorkshop, workshop
from hpcbinder.runtime.workshop_api import Workshop

__all__ = [
    "ApptainerWorkshop",
    "OF_THE_JOB",
    "PLAIN",
    "Prepared",
    "Bind",
    "Choice",
    "Command",
    "Compression",
    "Ended",
    "KernelSquashfs",
    "Key",
    "OpenToOthersError",
    "Request",
    "Runtime",
    "RuntimeImage",
    "Secluded",
    "Signer",
    "Workshop",
    "apptainer_settings",
    "asked_fault",
    "choose_compression",
    "command",
    "cuda_of_driver",
    "describe",
    "execute",
    "find_gpu",
    "gpu_needs",
    "gpu_shortcoming",
    "held",
    "inspect",
    "installed",
    "is_setuid",
    "job_options",
    "kernel_squashfs",
    "lab_argv",
    "launcher_files",
    "mounting",
    "mpi_check_argv",
    "nvidia_driver",
    "opened_at",
    "own_copy",
    "pick_runtime",
    "read_private_key",
    "read_public_key",
    "run_argv",
    "space_of",
    "too_old",
    "workshop",
]


def command(
    image: RuntimeImage,
    argv: Sequence[str],
    *,
    runtime: Runtime,
    binds: Sequence[str] = (),
    environment: Sequence[str] = (),
    gpu: str = "none",
    cwd: Path,
    environ: Mapping[str, str] | None = None,
) -> Command:
    """Say how one runtime runs one command in one image.

    Args:
        image: The image as the runtime wants it (`pick_runtime` makes it from a catalog entry).
        argv: The command inside.
        runtime: What runs it.
        binds: `/SOURCE[:/TARGET[:ro|rw]]`.
        environment: Names and globs of host variables that enter.
        gpu: nvidia, rocm or none.
        cwd: Working directory on the host.
        environ: The host's environment, `os.environ` when None.

    Raises:
        RunError: The runtime cannot do that.
    """
    try:
        return runtime.command(
            image,
            Request(
                argv=tuple(argv),
                cwd=str(cwd),
                environ=host_environment(os.environ if environ is None else environ),
                environment=tuple(environment),
                binds=tuple(map(parse_bind, binds)),
                gpu=gpu,
            ),
        )
    except LaunchError as error:
        raise RunError(str(error)) from error


def installed(settings: RuntimeConfig, environ: Mapping[str, str]) -> dict[str, str | None]:
    """Every runtime there is, in the order of preference, and where its program is after the site's prologue.

    Raises:
        RunError: The prologue fails.
    """
    try:
        after = environment_after(settings.prologue, host_environment(environ))
    except LaunchError as error:
        raise RunError(str(error)) from error
    return {name: find(name, after) for name in PROGRAMS}


def run_argv(
    entry: Entry,
    argv: Sequence[str] | None,
    settings: RuntimeConfig,
    *,
    cwd: Path,
    environ: Mapping[str, str] | None = None,
    interactive: bool = False,
    slurm: SlurmConfig | None = None,
    copy: Prepared | None = None,
    opens: str = "",
) -> Command:
    """What `hpcbinder run` executes: a command in an image, or JupyterLab (see `lab_argv`).

    Args:
        entry: The image.
        argv: The command, None for JupyterLab.
        settings: Configuration.
        cwd: Absolute working directory on the host, the same one inside where that can be.
        environ: The host's environment, `os.environ` when None.
        interactive: A person sits at a terminal.
        slurm: What of Slurm is within its reach; None for nothing.
        copy: The person's copy of the repository, where it is run instead of in `cwd`.
        opens: What JupyterLab shows first of that copy, "" for its folder.

    Raises:
        RunError: It cannot be run here.
    """
    cwd = cwd if copy is None else Path(copy.folder)
    environ = os.environ if environ is None else environ
    if argv is None and not os.access(cwd, os.W_OK):
        raise RunError(
            f"JupyterLab keeps a copy of the repository in {str(cwd)!r}, which you cannot write to",
            hint="change to a folder of yours first",
        )
    own = entry.config.labels.get(f"{contract.LABEL_PREFIX}{contract.LEVEL_LABEL}") == contract.OWN_LEVEL
    if argv is not None:
        words = argv
    elif copy is not None:
        words = lab_here_argv(opened_at(opens), own=own)
    else:
        words = lab_argv(entry.id, repository=repository_of(entry), own=own)
    description = describe(entry, settings, argv=words, environ=environ, slurm=slurm)
    if copy is not None:
        description = copy.described(description)
    try:
        return prepare(description, environ=environ, cwd=str(cwd), interactive=interactive)
    except LaunchError as error:
        raise RunError(str(error)) from error


def execute(command: Command, *, terminal: bool = False, parent: int | None = None) -> int:
    """Run a command to its end, pass signals on, and leave nothing of it behind however this process dies.

    What a person should know of it (`command.notes`) goes to standard error first.
    For a program's last act: it replaces signal handlers. Returns the exit code (128 + signal number if killed).
    `terminal`: a person sits at a terminal, whose Ctrl-C and job control reach the command directly.
    `parent`: The parent of this process, if the command is to end when that one does.
    """
    for note in command.notes:
        print(f"hpcbinder: {note}", file=sys.stderr)
    return supervise(command, terminal=terminal, parent=parent)

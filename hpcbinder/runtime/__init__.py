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
from hpcbinder.config import RuntimeConfig
from hpcbinder.errors import RunError
from hpcbinder.model import Entry
from hpcbinder.runtime.choose import PLAIN, Choice, mounting, pick_runtime
from hpcbinder.runtime.compression import Compression, choose_compression
from hpcbinder.runtime.describing import describe
from hpcbinder.runtime.kernel import KernelSquashfs, kernel_squashfs
from hpcbinder.runtime.lab import lab_argv
from hpcbinder.runtime.launch.environment import host_environment
from hpcbinder.runtime.launch.gpu import cuda_of_driver, nvidia_driver, too_old
from hpcbinder.runtime.launch.gpu import resolve as find_gpu
from hpcbinder.runtime.launch.main import prepare
from hpcbinder.runtime.launch.prologue import environment_after
from hpcbinder.runtime.launch.runtimes import PROGRAMS, find
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
from hpcbinder.runtime.workshop import Workshop, workshop

__all__ = [
    "PLAIN",
    "Bind",
    "Choice",
    "Command",
    "Compression",
    "Ended",
    "KernelSquashfs",
    "Key",
    "Request",
    "Runtime",
    "RuntimeImage",
    "Secluded",
    "Signer",
    "Workshop",
    "apptainer_settings",
    "choose_compression",
    "command",
    "cuda_of_driver",
    "describe",
    "execute",
    "find_gpu",
    "gpu_needs",
    "gpu_shortcoming",
    "inspect",
    "installed",
    "is_setuid",
    "kernel_squashfs",
    "lab_argv",
    "launcher_files",
    "mounting",
    "mpi_check_argv",
    "nvidia_driver",
    "pick_runtime",
    "read_private_key",
    "read_public_key",
    "run_argv",
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
) -> Command:
    """What `hpcbinder run` executes: a command in an image, or JupyterLab (see `lab_argv`).

    Args:
        entry: The image.
        argv: The command, None for JupyterLab.
        settings: Configuration.
        cwd: Absolute working directory on the host, the same one inside where that can be.
        environ: The host's environment, `os.environ` when None.
        interactive: A person sits at a terminal.

    Raises:
        RunError: It cannot be run here.
    """
    environ = os.environ if environ is None else environ
    if argv is None and not os.access(cwd, os.W_OK):
        raise RunError(
            f"JupyterLab keeps a copy of the repository in {str(cwd)!r}, which you cannot write to",
            hint="change to a folder of yours first",
        )
    description = describe(entry, settings, argv=_lab(entry) if argv is None else argv, environ=environ)
    try:
        return prepare(description, environ=environ, cwd=str(cwd), interactive=interactive)
    except LaunchError as error:
        raise RunError(str(error)) from error


def _lab(entry: Entry) -> tuple[str, ...]:
    level = entry.config.labels.get(f"{contract.LABEL_PREFIX}{contract.LEVEL_LABEL}")
    if level != contract.OWN_LEVEL:
        return lab_argv(entry.id)
    # A Dockerfile puts the repository where it likes, usually into its working directory.
    place = entry.config.workdir
    return lab_argv(entry.id, repository=place if place not in ("", "/") else contract.REPO_DIR, own=True)


def execute(command: Command, *, terminal: bool = False) -> int:
    """Run a command to its end, pass signals on, and leave nothing of it behind however this process dies.

    What a person should know of it (`command.notes`) goes to standard error first.
    For a program's last act: it replaces signal handlers. Returns the exit code (128 + signal number if killed).
    `terminal`: a person sits at a terminal, whose Ctrl-C and job control reach the command directly.
    """
    for note in command.notes:
        print(f"hpcbinder: {note}", file=sys.stderr)
    return supervise(command, terminal=terminal)

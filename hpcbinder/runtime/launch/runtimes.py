"""Every runtime by name."""

# Paths are text here: they become words of a command line.
# ruff: noqa: PTH100

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping

from .apptainer import Apptainer
from .charliecloud import Charliecloud
from .engines import Docker, PodmanHpc
from .shifter import Shifter
from .values import LaunchError, Runtime

PROGRAMS: Mapping[str, str] = {
    "apptainer": "apptainer",
    "singularity": "singularity",
    "shifter": "shifter",
    "podman-hpc": "podman-hpc",
    "charliecloud": "ch-run",
    "docker": "docker",
}
"""Runtime -> its command, in the order of preference."""

_MAKE: Mapping[str, Callable[[str], Runtime]] = {
    "apptainer": Apptainer,
    "singularity": lambda program: Apptainer(program, "singularity"),
    "shifter": Shifter,
    "podman-hpc": PodmanHpc,
    "charliecloud": Charliecloud,
    "docker": Docker,
}


def runtime(name: str, program: str) -> Runtime:
    """The runtime `name` (a key of `PROGRAMS`) whose command is at `program`."""
    return _MAKE[name](program)


def find(name: str, environ: Mapping[str, str]) -> str | None:
    """Where the command of runtime `name` is on the PATH of `environ`, None if it is not there."""
    found = shutil.which(PROGRAMS[name], path=environ.get("PATH", os.defpath))
    return os.path.abspath(found) if found else None


def locate(name: str, program: str, environ: Mapping[str, str]) -> Runtime:
    """The runtime as it is now: at `program` if that is still there, else wherever PATH has it.

    Raises:
        LaunchError: Neither is.
    """
    path = program if os.access(program, os.X_OK) else find(name, environ)
    if path is None:
        raise LaunchError(f"{program} is no longer there, and no {PROGRAMS[name]} is on PATH")
    return runtime(name, path)

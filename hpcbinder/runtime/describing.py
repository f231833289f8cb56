"""What a launcher must know of an image, as data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcbinder.config import RuntimeConfig, SlurmConfig
from hpcbinder.errors import ConvertError, RunError
from hpcbinder.model import Entry
from hpcbinder.runtime.choose import PLAIN, pick_runtime
from hpcbinder.runtime.launch.environment import host_environment
from hpcbinder.runtime.launch.prologue import environment_after
from hpcbinder.runtime.launch.starting import FORMAT
from hpcbinder.runtime.launch.values import LaunchError, parse_bind
from hpcbinder.runtime.needs import gpu_needs

_ACCOUNTS = 64 << 10
"""Bytes of a file that every launch reads."""


def describe(
    entry: Entry,
    settings: RuntimeConfig,
    *,
    argv: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    slurm: SlurmConfig | None = None,
    reads_image: bool = True,
) -> dict[str, Any]:
    """Everything a launcher needs to know to run a command in an image later, on another node, without hpcbinder.

    Args:
        entry: The image.
        settings: Configuration: which runtime, binds, environment, GPU, prologue.
        argv: The command inside; `{connection_file}` in it is replaced at the start.
        env: Variables to set for it, not secret.
        environ: The host's environment, `os.environ` when None. The prologue runs with it, as whoever calls: where that
            is done for somebody else, none of theirs, HOME above all.
        slurm: What of Slurm is within reach of the command, and what its workers' jobs ask for; None for nothing.
        reads_image: The image's file may be opened here; not where somebody else says where it is.

    Returns:
        The JSON object of a launch.json (`hpcbinder.runtime.launch.starting.prepare` documents it).

    Raises:
        RunError: No runtime here can run the image, the prologue fails, or a setting cannot be meant.
    """
    try:
        after = environment_after(settings.prologue, host_environment(os.environ if environ is None else environ))
        for bind in settings.binds:
            parse_bind(bind)
    except LaunchError as error:
        raise RunError(str(error)) from error
    choice = pick_runtime(settings.name, entry, environ=after, reads_image=reads_image)
    if choice.runtime.name == "charliecloud" and settings.gpu not in ("auto", "none"):
        raise RunError("Charliecloud cannot bring the host's GPU libraries into a squashfs", hint="use Apptainer")
    return {
        "format": FORMAT,
        "runtime": choice.runtime.name,
        "program": choice.runtime.program,
        "reason": choice.reason,
        "image": {
            "id": choice.image.id,
            "location": choice.image.location,
            "entrypoint": choice.image.entrypoint,
            "env": dict(choice.image.env),
            "mount_points": list(choice.image.mount_points),
        },
        "argv": list(argv),
        "env": dict(env or {}),
        "binds": list(settings.binds),
        "environment": list(settings.environment),
        "gpu": settings.gpu,
        "prologue": list(settings.prologue),
        **({"needs": needs} if (needs := gpu_needs(entry)) else {}),
        **({"slurm": _reach(slurm, entry, reads_image)} if slurm is not None and slurm.inside != "off" else {}),
    }


def _reach(slurm: SlurmConfig, entry: Entry, reads_image: bool) -> dict[str, Any]:
    asked = {name: getattr(slurm, name) for name in ("partition", "account", "qos", "constraint")}
    reach = {"inside": slurm.inside, "asked": {name: value for name, value in asked.items() if value}}
    accounts = _accounts(entry) if slurm.inside == "bound" and reads_image else None
    return reach if accounts is None else {**reach, "accounts": accounts}


def _accounts(entry: Entry) -> str | None:
    """The image's /etc/passwd, None if there is none to be read."""
    form = next((form for form in (*PLAIN, "sif") if form in entry.formats), None)
    if form is None:
        return None
    from hpcbinder.sif import primary_partition
    from hpcbinder.squashfs import Image

    path = Path(entry.formats[form])
    try:
        offset = primary_partition(path)[0] if form == "sif" else 0
        with Image.open(path, offset=offset) as image:
            return image.read("etc/passwd", _ACCOUNTS, follow=True).decode(errors="replace")
    except (ConvertError, OSError):
        return None

"""Which of the runtimes that are here runs an image, and from which of its formats."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcbinder import contract
from hpcbinder.config import RuntimeConfig
from hpcbinder.errors import RunError
from hpcbinder.model import Entry
from hpcbinder.runtime.launch.environment import host_environment
from hpcbinder.runtime.launch.prologue import environment_after
from hpcbinder.runtime.launch.runtimes import PROGRAMS, find, runtime
from hpcbinder.runtime.launch.values import Image, LaunchError, Runtime, bindable
from hpcbinder.runtime.mounts import mounts

_ACCEPTED: Mapping[str, tuple[str, ...]] = {"apptainer": ("apptainer", "singularity")}
"""What a name in the configuration stands for, where that is not itself alone."""

_INSTALL: Mapping[str, str] = {
    "apptainer": "install Apptainer (https://apptainer.org) or load its module (runtime.prologue)",
    "shifter": "Shifter is installed by a centre's staff",
    "podman-hpc": "podman-hpc is installed by a centre's staff",
    "charliecloud": "install Charliecloud (Debian: apt install charliecloud)",
    "docker": "install Docker and start its daemon",
}
PLAIN = ("squashfs", "charliecloud", "enroot", "shifter")
"""Formats whose file is the squashfs and nothing else, the one made for no runtime in particular first."""
_NOT_FOR_MOUNTS = frozenset({"boot", "dev", "etc", "home", "proc", "root", "run", "srv", "sys", "tmp", "usr", "var"})
"""Folders of the root that have a meaning of their own, empty or not."""


@dataclass(frozen=True)
class Choice:
    """A runtime, the image as it wants it, and the reason it was taken."""

    runtime: Runtime
    image: Image
    reason: str


def pick_runtime(
    name: str, entry: Entry, *, environ: Mapping[str, str] | None = None, reads_image: bool = True
) -> Choice:
    """Choose what runs an image here.

    Args:
        name: `auto`, or a runtime's name; `apptainer` takes Singularity where there is no Apptainer.
        entry: The image.
        environ: Environment whose PATH is looked at, after the site's prologue; `os.environ` when None.
        reads_image: The image's file may be opened. If not, Charliecloud gets no place in it for folders beside the
            home and /tmp.

    Raises:
        RunError: No such runtime is installed, or it cannot run the formats the image has.
    """
    environ = os.environ if environ is None else environ
    candidates = tuple(PROGRAMS) if name == "auto" else _ACCEPTED.get(name, (name,))
    refused: list[str] = []
    for candidate in candidates:
        program = find(candidate, environ)
        if program is None:
            refused.append(f"{candidate} is not installed")
            continue
        location = _location(candidate, entry, program if name == "auto" else None)
        if location is None:
            refused.append(f"{candidate} has no image to run ({_wanted(candidate)})")
            continue
        reason = "; ".join([f"{candidate} is at {program}", *refused])
        return Choice(runtime(candidate, program), _image(entry, candidate, location, reads_image), reason)
    hint = _INSTALL[name] if name in _INSTALL else f"{_INSTALL['apptainer']}, or {_INSTALL['charliecloud']}"
    raise RunError(f"no runtime can run {entry.id} here: {', '.join(refused)}", hint=hint)


def mounting(settings: RuntimeConfig, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Names of the runtimes here that run an image from its file, of those that may (`runtime.name`).

    Args:
        environ: The host's environment, `os.environ` when None.
    """
    try:
        after = environment_after(settings.prologue, host_environment(os.environ if environ is None else environ))
    except LaunchError:
        return ()
    return tuple(mount.runtime for mount in mounts(settings.name, after))


def _location(candidate: str, entry: Entry, program: str | None) -> str | None:
    """What the runtime is told the image is; `program` is given where an engine should be asked if it has it."""
    formats = entry.formats
    if candidate in ("apptainer", "singularity"):
        return formats.get("sif") or _plain(formats)
    if candidate == "charliecloud":
        return formats.get("charliecloud") or _plain(formats)
    if candidate == "shifter":
        return Path(formats["shifter"]).stem if "shifter" in formats else None
    if candidate == "podman-hpc" and "podman-hpc" in formats:
        return formats["podman-hpc"]
    tag = entry.image.get("name")
    if not tag or tag.startswith("-") or (program is not None and not _engine_has(program, tag)):
        return None
    return tag


def _plain(formats: Mapping[str, str]) -> str | None:
    return next((formats[form] for form in PLAIN if form in formats), None)


def _wanted(candidate: str) -> str:
    if candidate in ("apptainer", "singularity"):
        return "sif or squashfs in build.formats"
    if candidate == "podman-hpc":
        return "podman-hpc in build.formats"
    if candidate == "docker":
        return "it is not in the engine's store"
    return f"{candidate} in build.formats"


def _engine_has(program: str, tag: str) -> bool:
    try:
        asked = subprocess.run(
            [program, "image", "inspect", "--format", "{{.Id}}", tag],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def _image(entry: Entry, candidate: str, location: str, reads: bool) -> Image:
    level = entry.config.labels.get(f"{contract.LABEL_PREFIX}{contract.LEVEL_LABEL}")
    # What a repository's own Dockerfile made has an entrypoint of its own, and ours beside it.
    ours = entry.config.entrypoint[:1] == (contract.ENTRYPOINT,) or level == contract.OWN_LEVEL
    return Image(
        id=entry.id,
        location=location,
        entrypoint=contract.ENTRYPOINT if ours else "",
        env=dict(entry.config.env),
        mount_points=_mount_points(Path(location)) if candidate == "charliecloud" and reads else (),
    )


def _mount_points(squashfs: Path) -> tuple[str, ...]:
    """The image's empty folders, `/mnt` and below it first: `/scratch` and its like may be wanted for themselves."""
    from hpcbinder.squashfs import Image as SquashfsImage

    with SquashfsImage.open(squashfs) as image:

        def empty(path: str) -> bool:
            node = image.lookup(path)
            return node is not None and node.kind == "directory" and not image.listdir(path)

        top = [f"/{name}" for name in image.listdir("/") if name not in _NOT_FOR_MOUNTS]
        mnt = [f"/mnt/{name}" for name in image.listdir("/mnt")] if "/mnt" in top else []
        places = [*mnt, "/mnt", "/media", *top]
        return tuple(path for path in dict.fromkeys(places) if bindable(path) and empty(path))

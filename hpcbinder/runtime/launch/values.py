"""The values a runtime works with."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

GPUS = ("nvidia", "rocm", "none")


class LaunchError(Exception):
    """A command cannot be started like this; the text is one line for a person."""


@dataclass(frozen=True)
class Bind:
    """A folder or file of the host at a place inside.

    Attributes:
        source: Absolute path on the host.
        target: Absolute path inside.
        read_only: True if it cannot be written through.
    """

    source: str
    target: str
    read_only: bool = False

    def __str__(self) -> str:
        return f"{self.source}:{self.target}" + (":ro" if self.read_only else "")


# Every runtime takes SOURCE:TARGET in one word, Apptainer splits at commas, Docker at colons, ch-run at the first one.
_BINDABLE = re.compile(r"/[^:,\x00-\x1f\x7f]*")


def bindable(path: str) -> bool:
    """True if every runtime can be told this path in a bind: absolute, no colon, comma or control character."""
    return _BINDABLE.fullmatch(path) is not None


def parse_bind(text: str) -> Bind:
    """Read `/SOURCE[:/TARGET[:ro|rw]]`.

    Raises:
        LaunchError: The text is none, or names what no runtime can be told.
    """
    parts = text.split(":")
    read_only = len(parts) == 3 and parts[2] == "ro"
    if len(parts) > 3 or (len(parts) == 3 and parts[2] not in ("ro", "rw")) or not all(map(bindable, parts[:2])):
        raise LaunchError(f"not a bind: {text!r} (write /SOURCE[:/TARGET[:ro|rw]], without commas)")
    source, target = os.path.normpath(parts[0]), os.path.normpath(parts[1] if len(parts) > 1 else parts[0])
    if target == "/":
        raise LaunchError(f"not a bind: {text!r} would hide the whole image")
    return Bind(source, target, read_only)


@dataclass(frozen=True)
class Image:
    """What a runtime needs to know of an image.

    Attributes:
        id: hpcbinder's name of it.
        location: What the runtime is told: the path of a SIF, a squashfs or an image store, Shifter's id, the tag in an
            engine.
        entrypoint: The program inside that is put in front of every command, "" for an image without ours.
        env: The variables the image sets.
        mount_points: Empty folders of the image (`/mnt/0`, `/scratch`), for a runtime that cannot make one to mount at;
            the first ones are taken first.
    """

    id: str
    location: str
    entrypoint: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    mount_points: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """One command to run in an image.

    Attributes:
        argv: The command; `{name}` of `files` is replaced by that file's path inside.
        cwd: Working directory on the host, the same one inside where that can be.
        environ: The host's environment, after the site's prologue.
        environment: Names and globs of the variables that are let in.
        binds: Folders asked for in the configuration.
        later: What is made before the start, and bound after everything else.
        gpu: nvidia, rocm or none.
        files: Name -> absolute path on the host of a file the command must find.
        env: Variables set for the command (not secret: a runtime may show them in its arguments).
        interactive: True if a person sits at a terminal.
    """

    argv: tuple[str, ...]
    cwd: str
    environ: Mapping[str, str]
    environment: tuple[str, ...] = ()
    binds: tuple[Bind, ...] = ()
    later: tuple[Bind, ...] = ()
    gpu: str = "none"
    files: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    interactive: bool = False


@dataclass(frozen=True)
class Client:
    """The host's programs of a batch system, as a command inside finds them (`workers.bound`).

    Attributes:
        files: Path below the helper's folder -> text; those in `bin` are programs.
        folders: Folders below it that others are bound to.
        binds: What is bound, after the helper's folder.
    """

    files: Mapping[str, str]
    folders: tuple[str, ...]
    binds: tuple[Bind, ...]


@dataclass(frozen=True)
class Helper:
    """Who asks the batch system for what a command inside an image wants (`workers.helper`).

    Attributes:
        folder: Made for it, shown inside, and removed with it: its socket, and what is found there inside.
        shared: Made when the first job wants it, where all nodes see it; "" where others could change it.
        commands: Slurm's own commands are answered, too, not only requests for workers.
        client: What stands in for these inside, if the helper does not; None if nothing does.
        environ: Of Slurm's commands.
        cwd: Working directory of workers.
        description: How the image is run (launch.json).
        asked: What its jobs are asked for where nothing else is said.
        notes: What a person should know of it, one line each.
    """

    folder: str
    shared: str
    commands: bool
    client: Client | None
    environ: Mapping[str, str]
    cwd: str
    description: Mapping[str, Any]
    asked: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """What to execute on the host.

    Attributes:
        argv: Program (absolute path) and arguments; never holds the value of a host variable.
        env: Its whole environment.
        notes: What a person should know, one line each.
        cleanup: A command that ends what the runtime's daemon may have kept, () for none.
        stays: True if the runtime stays as the parent of what it runs (and passes its exit code on).
        helper: Who is started before it, and ended after it; None for nobody.
        lingers: Seconds that it has to end by itself once whom it serves is gone, and its input with them.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    notes: tuple[str, ...] = ()
    cleanup: tuple[str, ...] = ()
    stays: bool = False
    helper: Helper | None = None
    lingers: float = 0.0


class Runtime(Protocol):
    """A program that runs a command in an image without privileges of its own."""

    @property
    def name(self) -> str:
        """apptainer, singularity, charliecloud, shifter, podman-hpc, docker."""

    @property
    def program(self) -> str:
        """Absolute path of its command."""

    def command(self, image: Image, request: Request) -> Command:
        """Say how to run `request` in `image`.

        Raises:
            LaunchError: It cannot be done.
        """


def under(path: str, folder: str) -> bool:
    """True if `path` is `folder` or lies in it (by name: nothing is looked up)."""
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def fill(argv: tuple[str, ...], files: Mapping[str, str]) -> tuple[str, ...]:
    """Replace `{name}` in the words of `argv`, in one pass; other braces stay as they are."""

    def word(text: str) -> str:
        return re.sub(r"\{([A-Za-z0-9_]+)\}", lambda match: files.get(match[1], match[0]), text)

    return tuple(map(word, argv))

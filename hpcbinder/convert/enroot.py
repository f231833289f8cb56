"""What enroot looks for in an image's `/etc`.

Facts from NVIDIA/enroot `src/docker.sh` (docker::configure), `src/runtime.sh`, `src/common.sh` (envsubst, envfmt) and
`bin/enroot-switchroot.c`. `enroot import` writes four files, over whatever an image has there: `rc` (the container's
command), `rc.local` (empty), `environment` (its variables) and `fstab` (its volumes, as bind mounts onto themselves).
None is required: without `rc` the command runs with no ENTRYPOINT in front, and without `environment` there are no
variables at all, not even PATH. So here `rc` and `environment` are made, `fstab` if there are volumes, no `rc.local`.

What an image has itself in `environment` and `fstab` stays, above ours: of two lines for a variable the last counts.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

_OURS = "# hpcbinder, for enroot: rewritten by every conversion"
"""The line from which on a file is ours."""

_SUBSTITUTED = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_QUOTED = re.compile(r"""["'].*["'][ \t\v\f\r]*""")
_VOLUME = re.compile(r"/[A-Za-z0-9_.+/-]+")


def environment_file(env: Mapping[str, str], own: str = "") -> tuple[str, tuple[str, ...]]:
    """The text of `/etc/environment`, and the names it cannot carry.

    enroot replaces `${NAME}` by a variable of the host, which nothing keeps it from, leaves out its own `ENROOT_…`, and
    takes one pair of quotes off a value, twice (before and after its hooks).

    Args:
        env: The image's variables.
        own: What the image has there.
    """
    lines, lost = [], []
    for name, value in env.items():
        if "\n" in value or _SUBSTITUTED.search(value) or name.startswith("ENROOT_"):
            lost.append(name)
        else:
            lines.append(f'{name}=""{value}""' if _QUOTED.fullmatch(value) else f"{name}={value}")
    return _below(own, lines), tuple(lost)


def fstab(volumes: Sequence[str], own: str = "") -> str:
    """The text of `/etc/fstab`: volumes can be written to, as everywhere, even where the rest is read-only."""
    return _below(
        own,
        [
            f"${{ENROOT_ROOTFS}}{volume} {volume} none x-create=dir,bind,rw,nosuid,nodev"
            for volume in volumes
            if _VOLUME.fullmatch(volume) and ".." not in PurePosixPath(volume).parts
        ],
    )


def rc(workdir: str, runscript: str, *, local: bool) -> str:
    """The text of `/etc/rc`, which the image's shell reads, with a person's command as arguments.

    Args:
        workdir: Where the command begins, as Docker has it.
        runscript: The program in the image that does what `docker run` does.
        local: Have a person's `/etc/rc.local` read, which `enroot create` gives a place for. One that the image brings
            is meant for an init system.
    """
    place = shlex.quote(workdir if workdir.startswith("/") else "/")
    lines = ["#!/bin/sh", _OURS, f"mkdir -p -- {place} 2>/dev/null", f"cd -- {place} && unset OLDPWD || exit 1"]
    if local:
        lines.append("[ ! -s /etc/rc.local ] || . /etc/rc.local")
    return "\n".join([*lines, f'exec {shlex.quote(runscript)} "$@"', ""])


def is_ours(text: str) -> bool:
    """Whether a file is from an earlier conversion, as a whole or from some line on."""
    return _OURS in text.split("\n")


def _below(own: str, lines: Sequence[str]) -> str:
    kept = own.rstrip("\n").split("\n") if own else []
    if _OURS in kept:
        kept = kept[: kept.index(_OURS)]
    return "".join(f"{line}\n" for line in (*kept, *((_OURS, *lines) if lines else ())))

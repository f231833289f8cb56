"""An image's environment, as each runtime wants to be told."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_OF_THE_RUNTIME = frozenset(
    # Who runs it and where: the image contract, point 3. A value from the image would send a person's files to /root.
    ["HOME", "USER", "LOGNAME", "PWD", "OLDPWD"]
    # Read-only or of meaning to the shell that reads the scripts: an assignment ends or bends it.
    + ["UID", "EUID", "GID", "PPID", "OPTIND", "IFS", "SHELLOPTS", "BASHOPTS"]
)


def image_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The variables of an image that a runtime is to set, in their order.

    Names a shell cannot assign are left out, and so are those that belong to the person or to the shell.
    """
    return {name: value for name, value in env.items() if _NAME.fullmatch(name) and name not in _OF_THE_RUNTIME}


def shell_exports(env: Mapping[str, str]) -> str:
    """A shell script for Apptainer's `env/10-docker2singularity.sh`.

    Apptainer's own builder writes `${K:-"value"}`. Here the value is set outright and in single quotes, so that nothing
    of the host changes or expands it. `--env` and `APPTAINERENV_*` win all the same: Apptainer injects them after
    `env/99-base.sh` (internal/pkg/util/fs/files/action_script.sh).
    """
    lines = [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
    return "\n".join(["#!/bin/sh", *lines, ""])


def runscript(entrypoint: tuple[str, ...], cmd: tuple[str, ...]) -> str:
    """A shell script that does what `docker run IMAGE [ARGUMENT…]` does: arguments replace CMD, ENTRYPOINT is always
    first. Words are never evaluated again (Apptainer's own runscript does so)."""
    lines = ["#!/bin/sh"]
    if cmd or not entrypoint:
        words = " ".join(shlex.quote(word) for word in cmd or ("/bin/sh",))
        lines.append(f"[ $# -gt 0 ] || set -- {words}")
    if entrypoint:
        lines.append(f'set -- {" ".join(shlex.quote(word) for word in entrypoint)} "$@"')
    return "\n".join([*lines, 'exec "$@"', ""])


def charliecloud_file(env: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """The text of `/ch/environment`, which `ch-run --set-env` reads, and the names it cannot carry.

    One `K=V` per line; one pair of single quotes around a value is taken off, and nothing else is special as long as
    `--env-no-expand` is given (ch-run(1), "Setting variables with --set-env"). A value with a line end has no form.
    """
    lines, lost = [], []
    for name, value in env.items():
        if "\n" in value:
            lost.append(name)
        else:
            lines.append(f"{name}='{value}'\n" if value.startswith("'") else f"{name}={value}\n")
    return "".join(lines), tuple(lost)

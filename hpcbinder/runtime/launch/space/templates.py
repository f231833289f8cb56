"""Folders that a site names once for everybody: `{home}/binder`, `/project/{user}`, `$SCRATCH/binder`."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping

from ..values import LaunchError, bindable

_PART = re.compile(r"\{(?P<word>[^{}]*)\}|\$(?:\{(?P<braced>[^{}]*)\}|(?P<plain>[A-Za-z_][A-Za-z0-9_]*))|[{}$]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = ("home", "user")


def variables(template: str) -> tuple[str, ...]:
    """Names of the environment's variables in a template.

    Raises:
        LaunchError: It is none: a brace or a dollar in it means nothing, or it can be no absolute path.
    """
    names = []
    for match in _PART.finditer(template):
        name = match["braced"] if match["braced"] is not None else match["plain"]
        if name is None and match["word"] in _WORDS:
            continue
        if name is None or not _NAME.fullmatch(name):
            raise LaunchError(f"{template!r} is no folder: write {{home}}, {{user}}, $NAME or ${{NAME}} in it")
        names.append(name)
    if template and not re.match(r"[/~$]|\{home\}", template):
        raise LaunchError(f"{template!r} is no absolute path")
    return tuple(names)


def expand(template: str, environ: Mapping[str, str]) -> str:
    """The folder of the person who runs this.

    Args:
        template: An absolute path in which `{home}`, `{user}`, `$NAME`, `${NAME}` and a leading `~` stand for the
            person's.
        environ: The person's environment, with HOME.

    Raises:
        LaunchError: A variable is not set, or what comes of it is no folder that can be shown in an image.
    """
    variables(template)
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    words = {"home": environ["HOME"], "user": user}

    def value(match: re.Match[str]) -> str:
        if match["word"] is not None:
            return words[match["word"]]
        name = match["braced"] or match["plain"]
        if not environ.get(name):
            raise LaunchError(f"the folder {template!r} needs the variable {name}, which is not set here")
        return environ[name]

    text = _PART.sub(value, template)
    if text == "~" or text.startswith("~/"):
        text = words["home"] + text[1:]
    # normpath keeps two leading slashes, as POSIX has it.
    folder = os.path.normpath(text).replace("//", "/")
    if not bindable(folder) or folder == "/" or ".." in text.split("/"):
        raise LaunchError(f"{template!r} comes to {text!r}, which cannot be a folder in an image")
    return folder

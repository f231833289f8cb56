"""A command that begins in the very folder that is meant, or not at all.

A runtime is told a folder by its path, and shows what lies there when it looks. Where others may rename what is on the
way, that may be a folder of theirs by then; and Python, git and Jupyter run what they find where they are started. So
the first thing inside looks where it is: a folder of the same number that is the person's own is the one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .values import LaunchError

ELSEWHERE = 96
"""Exit code of a command that would have begun in another folder."""

# Before the image's entrypoint, which runs the repository's `start` there. dash, bash and busybox have -O; a shell that
# has not starts nothing.
_SCRIPT = """
refuse() {
    echo "hpcbinder: nothing is started: $1" >&2
    exit 96
}
case " $(ls -di . 2>/dev/null) " in
*" $1 . "*) ;;
*) refuse "what is seen inside is not $3 (runtime.binds), or somebody moved that away" ;;
esac
[ -O . ] || refuse "$3 is not yours"
if [ "$2" != 0 ]; then
    above=$(ls -di ..) || refuse "what is above $3 cannot be seen"
    case " $above " in
    *" $2 .. "*) refuse "others can move $3, and what is above it is shown inside, too (chmod +t the group's folder)" ;;
    esac
fi
shift 3
exec "$@"
"""

_SEARCHED = {"PATH": "[:]", "LD_LIBRARY_PATH": "[:;]", "LD_PRELOAD": "[: ]", "LD_AUDIT": "[:]"}
"""Variables that say where programs and libraries are found, and what is between elements (ld.so(8), execvp(3))."""


def searched_elsewhere(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables by which something would be looked for in the working directory (an empty element is that, and a
    relative one is below it), without it: the shell that looks where it is was itself loaded by them, and its `ls`.

    Args:
        environ: Variables that are set.
    """
    changed = {}
    for name in _SEARCHED.keys() & environ.keys():
        elements = re.split(_SEARCHED[name], environ[name])
        kept = [element for element in elements if element.startswith("/") or _is_name(name, element)]
        if kept != elements:
            # A PATH without any element is the working directory.
            changed[name] = ":".join(kept) or ("/usr/bin:/bin" if name == "PATH" else "")
    return changed


def _is_name(variable: str, element: str) -> bool:
    """Of a library, which is looked for where LD_LIBRARY_PATH says."""
    return variable in ("LD_PRELOAD", "LD_AUDIT") and element != "" and "/" not in element


def only_there(folder: Mapping[str, Any], argv: Sequence[str]) -> tuple[str, ...]:
    """A command inside that runs another one if the working directory is a certain folder.

    Args:
        folder: `path` on the host, for people, and `inode`, its number. Where somebody else may move it, `above` is the
            number of the folder that it is in: that one must not be seen inside. Then the path is this folder's alone
            there as long as the command runs, for what it starts by path later.
        argv: The other one, with the image's entrypoint in front.

    Raises:
        LaunchError: That is no folder.
    """
    path, inode, above = folder.get("path"), folder.get("inode"), folder.get("above", 0)
    if not isinstance(path, str) or not all(type(number) is int and number >= 0 for number in (inode, above)):
        raise LaunchError("launch.json describes no folder to start in")
    return ("/bin/sh", "-c", _SCRIPT, "hpcbinder", str(inode), str(above), path, *argv)

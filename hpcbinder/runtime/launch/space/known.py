"""Which folder a space's root was: a note in the person's home of its number, for roots that others may move."""

# Paths are text here, as in `preparing`.
# ruff: noqa: PTH105, PTH108, PTH118, PTH120, PTH123, PTH208

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping

from ..private import OpenToOthersError
from ..state import make_state_folder, state_folder
from ..values import LaunchError
from .place import Place


def as_before(root: Place, environ: Mapping[str, str]) -> None:
    """See that a root is the folder that it was at the launch before.

    In a group's folder a colleague can put another folder of the person's own there: an unpacked repository of a
    stranger's, say, with copies and what is known of them prepared in it. Its owner is the right one. The first
    launch takes what there is, and so does one with a home that cannot be written to, or where others can.

    Args:
        root: Held.
        environ: The person's environment, with HOME.

    Raises:
        LaunchError: It is another one; the text says how to take that.
    """
    if not root.above:
        return
    try:
        folder = state_folder(environ, "spaces")
    except OpenToOthersError:
        return  # a note there would be theirs as much as the root is
    name = hashlib.sha256(root.path.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    file = os.path.join(folder, name)
    known = _read(file)
    # One that was made just now has nothing prepared in it.
    if known is None or (known != root.inode and not os.listdir(root.at)):
        _write(file, root.inode)
    elif known != root.inode:
        raise LaunchError(
            f"{root.path} (space.folder) is not the folder that it was: somebody of the group may have moved that and "
            f"put this there; if it was you, `rm {file}` takes it"
        )


def _read(file: str) -> int | None:
    try:
        with open(file, encoding="ascii") as opened:
            return int(opened.read(32))
    except (OSError, ValueError):
        return None


def _write(file: str, number: int) -> None:
    folder = os.path.dirname(file)
    try:
        make_state_folder(folder)
        descriptor, partial = tempfile.mkstemp(dir=folder)
    except (OpenToOthersError, OSError):
        return
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write(f"{number}\n")
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(partial, file)
    except OSError:
        os.unlink(partial)

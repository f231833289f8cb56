"""Where the launcher keeps what lasts longer than a launch, and is read or run by its path later."""

# Paths are text here, as in `space.preparing`.
# ruff: noqa: PTH117, PTH118, PTH119, PTH120

from __future__ import annotations

import os
from collections.abc import Mapping

from .private import OpenToOthersError, held


def state_folder(environ: Mapping[str, str], name: str) -> str:
    """A folder below `$XDG_STATE_HOME/hpcbinder`, or below `~/.local/state/hpcbinder` where others could put another in
    its place.

    Args:
        environ: The person's environment, with HOME.
        name: Of the folder, which need not be there yet.

    Raises:
        OpenToOthersError: They could do so with both.
    """
    state, home = environ.get("XDG_STATE_HOME", ""), os.path.join(environ["HOME"], ".local/state")
    if os.path.isabs(state) and stays(folder := os.path.join(state, "hpcbinder", name)):
        return folder
    folder = os.path.join(home, "hpcbinder", name)
    _look(folder)
    return folder


def make_state_folder(path: str) -> None:
    """Make such a folder if it is not there, closed to others.

    Raises:
        OpenToOthersError: Others could put something in its place by now.
        OSError: It cannot be made.
    """
    above = held(os.path.dirname(path), make=True)
    try:
        os.mkdir(os.path.basename(path), 0o700, dir_fd=above)
    except FileExistsError:
        pass
    finally:
        os.close(above)
    os.close(held(path))


def stays(path: str) -> bool:
    """Whether nobody else can put something in the place of a folder, or of what of it is not there yet."""
    try:
        _look(path)
    except OpenToOthersError:
        return False
    return True


def _look(path: str) -> None:
    try:
        os.close(held(path))
    except OSError:
        pass  # what is on the way to it was looked at; whoever needs it is told

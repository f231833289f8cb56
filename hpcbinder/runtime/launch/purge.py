"""What a site's purge took out of a person's copy: files that were not used for some days."""

# Paths are text here: they become words of a command line, and may be no text at all.
# ruff: noqa: PTH103, PTH104, PTH110, PTH112, PTH114, PTH118, PTH120

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Mapping

_DAY = 86400
_TAKEN = -1
"""Instead of a time: the person took the file away."""


def written(top: str) -> dict[str, int]:
    """Path -> time (Unix, s) of the last change, of every file below a folder."""
    found = {}
    for folder, names, files in os.walk(top):
        for name in (*files, *names):
            path = os.path.join(folder, name)
            state = os.lstat(path)
            if not stat.S_ISDIR(state.st_mode):
                found[os.path.relpath(path, top)] = int(state.st_mtime)
    return found


def lost(top: str, seen: Mapping[str, int], days: int) -> tuple[list[str], dict[str, int]]:
    """Which files a purge may have removed.

    A file that is missing, though it was written to less than `days` ago when it was last seen, was removed by the
    person: it stays away. Of an older one nobody can tell.

    Args:
        top: The copy.
        seen: What `written` or this function found last.
        days: Age at which the site removes files.

    Returns:
        The files that may have been purged, and what was found now.
    """
    now = time.time()
    gone, found = [], {}
    for path, when in seen.items():
        try:
            found[path] = int(os.lstat(os.path.join(top, path)).st_mtime)
        except (FileNotFoundError, NotADirectoryError):
            if when != _TAKEN and now - when >= days * _DAY and _may_return(top, path):
                gone.append(path)
                found[path] = int(now)
            else:
                found[path] = _TAKEN
    return gone, found


def _may_return(top: str, path: str) -> bool:
    """False for a name of git's that it keeps elsewhere by now: an old one would hide what it stands for."""
    parts = path.split("/")
    if parts[:2] == [".git", "refs"]:
        return not os.path.exists(os.path.join(top, ".git/packed-refs"))
    return True


def put_back(source: str, top: str, paths: Iterable[str]) -> list[str]:
    """Move files of a fresh copy to their places, where nothing is.

    Args:
        source: The fresh copy, on the same file system.
        top: The person's.
        paths: Below both.

    Returns:
        The paths that were put back: not those that the fresh copy lacks, nor what would lie behind a link.
    """
    back = []
    for path in paths:
        target = os.path.join(top, path)
        if not os.path.lexists(os.path.join(source, path)) or os.path.lexists(target) or not _folders(top, path):
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(os.path.join(source, path), target)
        back.append(path)
    return back


def _folders(top: str, path: str) -> bool:
    """True if what is there of the folders above a path are folders, not links or files."""
    folder = os.path.dirname(path)
    while folder:
        full = os.path.join(top, folder)
        if os.path.lexists(full) and (os.path.islink(full) or not os.path.isdir(full)):
            return False
        folder = os.path.dirname(folder)
    return True

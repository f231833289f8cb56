"""What a site's purge took out of a person's copy: files that were not used for some days."""

# Paths are text here: they become words of a command line, and may be no text at all.
# ruff: noqa: PTH106, PTH110, PTH114, PTH118

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

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


def emptied(top: str) -> bool:
    """Remove the folders that are left where a purge took every file, what is known of the copy as well.

    Returns:
        False if something but folders is there: nothing is removed then.
    """
    folders = []
    for folder, names, files in os.walk(top):
        if files or any(os.path.islink(os.path.join(folder, name)) for name in names):
            return False
        folders.append(folder)
    try:
        for folder in reversed(folders):
            os.rmdir(folder)
    except OSError:
        return False
    return bool(folders)


def put_back(source: str, top: str, paths: Iterable[str]) -> list[str]:
    """Move files of a fresh copy to their places, where nothing is.

    The person may share a copy, and then others may move its folders meanwhile: what was looked at is what is written
    to (openat(2), "Rationale").

    Args:
        source: The fresh copy, on the same file system.
        top: The person's.
        paths: Below both.

    Returns:
        The paths that were put back: not those that the fresh copy lacks, nor what would lie behind a link or in
        somebody else's folder.
    """
    back = []
    for path in paths:
        *folders, name = path.split("/")
        with _reached(source, folders, make=False) as fresh:
            if fresh is None or not _there(name, fresh):
                continue
            with _reached(top, folders, make=True) as place:
                if place is None or _there(name, place):
                    continue
                os.rename(name, name, src_dir_fd=fresh, dst_dir_fd=place)
        back.append(path)
    return back


@contextmanager
def _reached(top: str, folders: Iterable[str], *, make: bool) -> Iterator[int | None]:
    """A descriptor of a folder further down (open(2), O_PATH), None where a link, a file or somebody else's folder is
    on the way."""
    at = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in folders:
            below = _below(at, name, make)
            if below is None:
                yield None
                return
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def _below(at: int, name: str, make: bool) -> int | None:
    if make:
        try:
            os.mkdir(name, dir_fd=at)
        except FileExistsError:
            pass
    try:
        found = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if os.fstat(found).st_uid == os.geteuid():
        return found
    os.close(found)
    return None


def _there(name: str, at: int) -> bool:
    try:
        os.lstat(name, dir_fd=at)
    except FileNotFoundError:
        return False
    return True

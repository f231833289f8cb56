"""Where a person's copies lie: a folder of theirs, held while it is worked in."""

# Paths are text here: they become words of a command line, and may be no text at all.
# ruff: noqa: PTH114, PTH115, PTH116, PTH118, PTH120

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..private import OpenToOthersError, held
from ..values import LaunchError, under


@dataclass(frozen=True)
class Place:
    """A folder by both of its names.

    Attributes:
        path: For people, and for runtimes, which know none but paths. In a folder of a group's somebody may have put
            something else there by now.
        at: The folder itself, as long as this process holds it: all that is done here is done by this name.
    """

    path: str
    at: str

    @property
    def inode(self) -> int:
        """Its number, by which it is told from whatever else has its path."""
        return os.stat(self.at).st_ino

    @property
    def above(self) -> int:
        """The number of the folder that it is in, 0 where nobody else can move it."""
        return 0 if _stays(self.path) else os.stat(os.path.join(self.at, "..")).st_ino

    def below(self, *names: str) -> Place:
        """What lies in it."""
        return Place(os.path.join(self.path, *names), os.path.join(self.at, *names))


@contextmanager
def root_of(path: str) -> Iterator[Place]:
    """The folder for a person's copies (`space.folder`), which is made if it is not there.

    Raises:
        LaunchError: It is not the person's, would not stay so, or cannot be made.
    """
    if os.path.lexists(path) and not is_own(path):
        raise LaunchError(f"{path} (space.folder) belongs to somebody else: a site has {{user}} in it")
    try:
        descriptor = held(path, make=True, groups=True)
    except OpenToOthersError as error:
        raise LaunchError(f"no copy is kept in {path} (space.folder), which would not stay yours: {error}") from None
    except OSError as error:
        raise LaunchError(f"cannot make {error.filename or path} (space.folder): {error.strerror}") from error
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise LaunchError(f"{path} (space.folder) belongs to somebody else: a site has {{user}} in it")
        yield Place(path, f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


@contextmanager
def copy_of(place: Place) -> Iterator[Place]:
    """A copy in that folder, or where the person's own link in its place leads.

    Raises:
        LaunchError: The link leads to where somebody else may have put it.
        OSError: It is not there any more.
    """
    if os.path.islink(place.at):
        target = os.path.join(os.path.dirname(place.path), os.readlink(place.at))
        try:
            descriptor = held(target.rstrip("/"), groups=True, open_itself=True)
        except OpenToOthersError as error:
            raise LaunchError(f"{place.path} is a link to {target}, which would not stay yours: {error}") from None
    else:
        descriptor = os.open(place.at, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        about = os.fstat(descriptor)
        if about.st_uid != os.geteuid():
            raise OSError(errno.EPERM, "it belongs to somebody else", place.path)
        at = f"/proc/self/fd/{descriptor}"
        # Of a link runtimes show the link alone.
        yield Place(os.readlink(at) if os.path.islink(place.at) else place.path, at)
    finally:
        os.close(descriptor)


def in_folder(description: Mapping[str, Any], cwd: str) -> dict[str, Any]:
    """A description (`starting.prepare`) for a command that is to start in another folder than the copy.

    Args:
        description: Whose `folder` is the copy, if it has one.
        cwd: Absolute. Where somebody may have moved the copy, and this instead of it, the copy counts.
    """
    folder = description.get("folder")
    if folder is None:
        return dict(description)
    bases = (folder["path"], os.path.realpath(folder["path"]))
    if cwd in bases:
        return dict(description)
    try:
        base = next((base for base in bases if under(cwd, base)), "")
        if not base:
            if not _stays(folder["path"]) and not _stays(cwd):
                return dict(description)
            return {name: value for name, value in description.items() if name != "folder"}
        descriptor = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            about, below = os.fstat(descriptor), f"/proc/self/fd/{descriptor}{cwd[len(base) :]}"
            if (about.st_ino, about.st_uid) == (folder["inode"], os.geteuid()) and is_own(below):
                above = os.stat(f"{below}/..").st_ino if folder["above"] else 0
                return {**description, "folder": {"path": cwd, "inode": os.stat(below).st_ino, "above": above}}
        finally:
            os.close(descriptor)
    except OSError:
        pass
    return dict(description)


def _stays(path: str) -> bool:
    try:
        os.close(held(path))
    except (OpenToOthersError, OSError):
        return False
    return True


def is_own(path: str) -> bool:
    """True for a folder of ours, or our link to one: in a folder that others share, anybody could plant another."""
    try:
        named, found = os.lstat(path), os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and named.st_uid == found.st_uid == os.geteuid()


def without_caches(path: str) -> tuple[str, ...]:
    """Make the folder for caches, which may be one that everybody writes to (profile.sh makes a private one in it), or
    say why it is done without: nobody is kept from work by it. Programs read settings there, and run what these say:
    no group's folder is on the way."""
    try:
        os.close(held(path, make=True))
        why = "" if os.access(path, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)
    except OpenToOthersError as error:
        why = str(error)
    except OSError as error:
        why = error.strerror or str(error)
    return (f"caches stay on this node: {path} (space.caches) cannot be used: {why}",) if why else ()

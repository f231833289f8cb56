"""What is known of a person's copies: files in `ROOT/.hpcbinder`, under a lock."""

# Paths are text here: they become words of a command line, and may be no text at all.
# ruff: noqa: PTH101, PTH102, PTH105, PTH108, PTH112, PTH114, PTH118, PTH119, PTH208

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from ..values import LaunchError
from .place import Place

FOLDER = ".hpcbinder"
_FORMAT = 1
_LIMIT = 256 << 20
_PARTIAL = "new-"
_OLD = 86400.0
"""Seconds after which what is being made without a lock is given up for dead."""


@dataclass(frozen=True)
class Record:
    """A copy.

    Attributes:
        name: Of its folder.
        key: Which repository it is of (`key_of`).
        commit: Full id of what it was made of, "" if there was none.
        image: Id of the image it was made of.
        made: When (Unix time, s).
        files: Path -> when it was last seen to have been written to (Unix time, s), -1 for a file that the person took
            away; only where the site removes files.
    """

    name: str
    key: str
    commit: str
    image: str
    made: float
    files: Mapping[str, int] = field(default_factory=dict)


def key_of(source: str, ref: str, subdir: str) -> str:
    """What tells repositories apart, commits of one branch not."""
    return hashlib.sha256("\0".join((source, ref, subdir)).encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Records:
    """The records below one root. `opened` makes them.

    Args:
        place: Where they lie; what is being made lies there, too.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._folder = place.at

    @classmethod
    @contextmanager
    def opened(cls, root: Place, *, patience: float) -> Iterator[Records]:
        """The records, for one launch at a time where the file system knows locks.

        Args:
            root: Folder of the person, held.
            patience: Seconds to wait for other launches.

        Raises:
            LaunchError: Another launch does not come to an end, or the folder is not the person's.
        """
        place = root.below(FOLDER)
        folder = place.at
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            found = os.lstat(folder)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise LaunchError(
                    f"{place.path} is not a folder of yours: remove it, or choose another place"
                ) from None
        descriptor = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            locked = _locked(descriptor, place.path, patience)
            records = cls(place)
            records._sweep(0.0 if locked else _OLD)
            yield records
        finally:
            os.close(descriptor)

    def of(self, key: str) -> list[Record]:
        """The copies of a repository, the newest first."""
        found = [record for name in self._names() if (record := self.get(name)) is not None and record.key == key]
        return sorted(found, key=lambda record: record.made, reverse=True)

    def get(self, name: str) -> Record | None:
        """What is known of a folder, None for nothing that can be read."""
        try:
            descriptor = os.open(self._file(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                values = json.loads(file.read(_LIMIT))
            return _read(name, values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def put(self, record: Record) -> None:
        """Write a record; it is there whole or as before."""
        values = {"format": _FORMAT, **asdict(record)}
        descriptor, partial = tempfile.mkstemp(prefix=_PARTIAL, dir=self._folder)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                json.dump(values, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self._file(record.name))
        except BaseException:
            os.unlink(partial)
            raise

    def forget(self, name: str) -> None:
        """Remove a record, if there is one."""
        try:
            os.unlink(self._file(name))
        except FileNotFoundError:
            pass

    @contextmanager
    def making(self) -> Iterator[Place]:
        """A folder for what is being made, which is gone afterwards."""
        folder = tempfile.mkdtemp(prefix=_PARTIAL, dir=self._folder)
        try:
            _without_defaults(folder)
            yield self._place.below(os.path.basename(folder))
        finally:
            remove(folder)

    def _file(self, name: str) -> str:
        return os.path.join(self._folder, f"{name}.json")

    def _names(self) -> list[str]:
        return [name[:-5] for name in os.listdir(self._folder) if name.endswith(".json")]

    def _sweep(self, age: float) -> None:
        """Remove what launches left behind that were killed."""
        for name in os.listdir(self._folder):
            path = os.path.join(self._folder, name)
            try:
                if name.startswith(_PARTIAL) and time.time() - os.lstat(path).st_mtime >= age:
                    remove(path)
            except FileNotFoundError:
                pass


def _read(name: str, values: Any) -> Record | None:
    if values["format"] != _FORMAT or values["name"] != name:
        return None
    key, commit, image = (values[word] for word in ("key", "commit", "image"))
    if not all(isinstance(text, str) for text in (key, commit, image)):
        return None
    files = {str(path): int(seen) for path, seen in values["files"].items()}
    return Record(name, key, commit, image, float(values["made"]), files)


def _without_defaults(folder: str) -> None:
    """Project folders like to have a list of who may write to all that is made below (acl(5), default ACLs): not to
    this."""
    try:
        os.removexattr(folder, "system.posix_acl_default")
    except OSError:
        pass  # there is none


def _locked(descriptor: int, folder: str, patience: float) -> bool:
    """Wait for the lock; False where the file system has none (Lustre without `flock`): then renaming decides."""
    end = time.monotonic() + patience
    pause = 0.05
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL):
                return False
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
                raise
        else:
            return True
        if time.monotonic() > end:
            raise LaunchError(f"another launch is still copying a repository (it holds {folder}/lock)")
        time.sleep(pause)
        pause = min(pause * 2, 1.0)


def remove(path: str) -> None:
    """Remove a file, or a folder with all that is in it, also where folders are closed to their owner; what cannot be
    removed stays for the next launch."""
    if not os.path.isdir(path) or os.path.islink(path):
        os.unlink(path)
        return
    for folder, names, _ in os.walk(path):
        for name in names:
            inner = os.path.join(folder, name)
            if not os.path.islink(inner):
                os.chmod(inner, 0o700)
    shutil.rmtree(path, ignore_errors=True)

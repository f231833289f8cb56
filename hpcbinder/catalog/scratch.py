"""Scratch folders that go away with the process that made them, even after a `kill -9`.

Each folder `NAME` has a file `NAME.owner` that its process keeps locked as long as it lives; the kernel lets go of the
lock when the process dies, however it does. A process id would say less: another container or PID namespace on the same
file system has its own numbering. Locks may be local to a machine (Lustre with localflock), so the folders of another
machine are only removed when they are old.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcbinder.catalog.files import remove_tree, writing

_SUFFIX = ".owner"
OLD = 14 * 24 * 3600
"""Age (s) at which a folder of another machine is taken to be forgotten: longer than any batch job."""


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A new empty folder in `folder`, private to this user, removed at the end.

    Raises:
        CatalogError: It cannot be made.
    """
    path = folder / secrets.token_hex(8)
    owner = path.with_name(path.name + _SUFFIX)
    with writing(folder):
        descriptor = os.open(owner, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with writing(folder):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, json.dumps(_me()).encode())
            path.mkdir(mode=0o700)
        yield path
    finally:
        remove_tree(path)
        owner.unlink(missing_ok=True)
        os.close(descriptor)


def clean(folder: Path) -> None:
    """Remove what dead processes left in `folder`. What cannot be removed is left; nothing is raised."""
    for _ in _dead(folder, remove=True):
        pass


def dead(folder: Path) -> list[Path]:
    """What `clean` would remove."""
    return list(_dead(folder, remove=False))


def _dead(folder: Path, *, remove: bool) -> Iterator[Path]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 (names, not paths)
    except OSError:
        return
    owned = {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)}
    for name in sorted(owned):
        if _is_dead(folder / name, remove=remove):
            yield folder / name
    for name in sorted(set(names) - owned - {name + _SUFFIX for name in owned}):
        path = folder / name  # its owner file is gone: somebody else is removing it, or was
        if _age(path) > OLD:
            if remove:
                remove_tree(path)
            yield path


def _is_dead(path: Path, *, remove: bool) -> bool:
    owner = path.with_name(path.name + _SUFFIX)
    try:
        descriptor = os.open(owner, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if not _from_here(os.read(descriptor, 4096)) and _age(owner) < OLD:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if remove:
            remove_tree(path)
            if not path.exists():
                owner.unlink(missing_ok=True)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _me() -> dict[str, str | int]:
    return {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(), "started": int(time.time())}


def _boot() -> str:
    """Which running kernel this is: two containers with one host name differ, two namespaces of one machine do not."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _from_here(raw: bytes) -> bool:
    """Whether the owner runs, or ran before a reboot, on this machine.

    An owner that has not said so yet is about to take its lock and then make its folder, or was killed before: its lock
    tells. Should we come in between, it only has a folder without an owner file.
    """
    if not raw:
        return True
    try:
        owner = json.loads(raw)
        return bool(owner["boot"] == _boot() or (owner["host"] == socket.gethostname()))
    except (ValueError, TypeError, KeyError):
        return False


def _age(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0

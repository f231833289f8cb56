"""From what mmdebstrap made to a layer: nothing of this machine or moment in it, the same bytes each time."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import posixpath
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, BinaryIO, cast

DROPPED = (
    "/dev/*",
    "/run/*",
    "/tmp/*",
    "/var/tmp/*",
    "/etc/.pwd.lock",
    "/etc/apt/apt.conf.d/99mmdebstrap",
    "/etc/apt/sources.list",
    "/etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "/etc/group-",
    "/etc/gshadow-",
    "/etc/machine-id",
    "/etc/passwd-",
    "/etc/shadow-",
    "/etc/subgid-",
    "/etc/subuid-",
    "/var/cache/apt/*.bin",
    "/var/cache/apt/archives/*.deb",
    "/var/cache/apt/archives/lock",
    "/var/cache/debconf/*-old",
    "/var/cache/ldconfig/aux-cache",
    "/var/lib/apt/lists/*_*",
    "/var/lib/apt/lists/lock",
    "/var/lib/dbus/machine-id",
    "/var/lib/dpkg/*-old",
    "/var/lib/dpkg/lock*",
    "/var/log/*.log",
    "/var/log/apt/*",
    "/var/log/btmp",
    "/var/log/faillog",
    "/var/log/lastlog",
    "/var/log/wtmp",
)
"""Globs (`*` also matches `/`) of what never enters a base: devices, logs, caches, locks, backups."""


@dataclass(frozen=True)
class Layer:
    """What became of it.

    Attributes:
        diff_id: `sha256:…` of the layer's tar.
        python: `X.Y` of its /usr/bin/python3, "" if there is none.
    """

    diff_id: str
    python: str


def tidy(
    rootfs: IO[bytes], out: BinaryIO, *, folders: Mapping[str, int], files: Mapping[str, tuple[int, str]], newest: int
) -> Layer:
    """Copy a root file system's tar into a layer's.

    Args:
        rootfs: The tar as it comes; only read forward.
        out: Where the layer goes.
        folders: Path -> mode of folders the layer holds in any case, empty ones.
        files: Path -> (mode, text) of files it holds instead of what is there.
        newest: Unix time (s); what is newer gets it.

    Raises:
        tarfile.TarError: The input is no tar, or is cut off.
    """
    hashing = _Hashing(out)
    python = ""
    with (
        tarfile.open(fileobj=rootfs, mode="r|") as source,
        tarfile.open(fileobj=cast(BinaryIO, hashing), mode="w|", format=tarfile.PAX_FORMAT) as layer,
    ):
        for member in source:
            path = posixpath.normpath(f"/{member.name}")
            if path in files or path in folders or any(fnmatch.fnmatchcase(path, glob) for glob in DROPPED):
                continue
            if path == "/usr/bin/python3" and member.issym():
                python = posixpath.basename(member.linkname).removeprefix("python")
            content = source.extractfile(member) if member.isreg() else None
            if content is not None and path.endswith(".pyc"):
                content = io.BytesIO(_trusting(content.read()))
            layer.addfile(_plain(member, path, newest), content)
        for path, mode in sorted(folders.items()):
            entry = tarfile.TarInfo(path[1:])
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, mode, newest
            layer.addfile(entry)
        for path, (mode, text) in sorted(files.items()):
            entry = tarfile.TarInfo(path[1:])
            entry.mode, entry.mtime, entry.size = mode, newest, len(text.encode())
            layer.addfile(entry, io.BytesIO(text.encode()))
    return Layer(f"sha256:{hashing.hexdigest()}", python)


def _plain(member: tarfile.TarInfo, path: str, newest: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path[1:] or ".")
    entry.type, entry.mode, entry.size = member.type, member.mode, member.size
    entry.uid, entry.gid = member.uid, member.gid
    entry.mtime = min(int(member.mtime), newest)
    entry.linkname = member.linkname
    if member.islnk():
        entry.linkname = posixpath.normpath(f"/{member.linkname}")[1:]
    return entry


def _trusting(pyc: bytes) -> bytes:
    """Bytecode whose source is to be hashed at each import (SOURCE_DATE_EPOCH makes such, PEP 552) becomes bytecode
    that is taken as it is: in an image nobody edits the source."""
    return pyc[:4] + b"\x01\0\0\0" + pyc[8:] if pyc[4:8] == b"\x03\0\0\0" else pyc


class _Hashing:
    """A file that remembers the SHA-256 of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, block: bytes) -> int:
        self._hash.update(block)
        return self._file.write(block)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

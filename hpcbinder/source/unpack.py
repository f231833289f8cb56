"""Unpack an archive that anybody may have made: nothing outside the folder, no more than there is room for.

Links are made last, so that no file is ever written through one; where they point to is their own affair, as in a git
checkout. Only what a repository can hold is made: folders, files (executable or not) and symbolic links.
"""

from __future__ import annotations

import io
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hpcbinder.errors import FetchError
from hpcbinder.text import one_line

_MEMBERS = 2_000_000
_TARGET = 4096
_PIECE = 1 << 20
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    RuntimeError,  # encrypted, or compressed in a way that Python has not
    EOFError,
    ValueError,
    OverflowError,
    MemoryError,  # a header that says it has as many bytes
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True)
class _Member:
    name: str
    kind: str  # folder, file, link
    size: int
    executable: bool
    open: Callable[[], IO[bytes]]


def unpack_zip(archive: Path, folder: Path, *, limit: int, tick: Callable[[], None]) -> None:
    """Unpack a zip file's files below an existing folder, without the one folder that may hold them all.

    Args:
        limit: Bytes they may have together.
        tick: Called now and then, so that somebody can tell work from a standstill.

    Raises:
        FetchError: A name leads elsewhere, the archive is damaged or encrypted, or it is too large.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            _unpack([_zipped(opened, info) for info in opened.infolist()], folder, limit, tick)
    except _BROKEN as error:
        raise _unreadable(archive, error) from error


def unpack_tar(archive: Path, folder: Path, *, limit: int, tick: Callable[[], None]) -> None:
    """Unpack a tar file's files likewise, compressed or not.

    Raises:
        FetchError: As `unpack_zip`; also for a member that is no file, folder or symbolic link.
    """
    try:
        with tarfile.open(archive, "r:*") as opened:
            infos = []
            for info in opened:  # one at a time: the list of a hostile one has no end
                infos.append(info)
                tick()
                if len(infos) > _MEMBERS:
                    break
            _unpack([_tarred(opened, info) for info in infos], folder, limit, tick)
    except _BROKEN as error:
        raise _unreadable(archive, error) from error


def _unreadable(archive: Path, error: Exception) -> FetchError:
    return FetchError(f"the archive cannot be unpacked: {one_line(str(error), 200)}", where=_shown(archive.name))


def _zipped(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    mode = info.external_attr >> 16
    kind = "folder" if info.is_dir() else "link" if stat.S_ISLNK(mode) else "file"
    return _Member(info.filename, kind, info.file_size, bool(mode & 0o111), lambda: opened.open(info))


def _tarred(opened: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    if info.issym():
        raw = info.linkname.encode("utf-8", "surrogateescape")
        return _Member(info.name, "link", len(raw), False, lambda: io.BytesIO(raw))
    if not (info.isreg() or info.isdir()):
        raise FetchError("holds what is no file, folder or symbolic link", where=_shown(info.name))

    def contents() -> IO[bytes]:
        file = opened.extractfile(info)
        if file is None:
            raise tarfile.ReadError("a member without contents")
        return file

    return _Member(info.name, "folder" if info.isdir() else "file", info.size, bool(info.mode & 0o111), contents)


def _unpack(members: list[_Member], folder: Path, limit: int, tick: Callable[[], None]) -> None:
    if len(members) > _MEMBERS:
        raise FetchError(f"the archive holds more than {_MEMBERS} files")
    total = sum(member.size for member in members)
    check_room(total, folder, limit)
    links: list[tuple[Path, _Member]] = []
    for parts, member in _placed(members):
        path = folder.joinpath(*parts)
        if member.kind == "link":
            links.append((path, member))
            continue
        _make_folders(folder, parts if member.kind == "folder" else parts[:-1])
        if member.kind == "file" and parts:
            _write(member, path, tick)
    for path, member in links:
        if member.size > _TARGET:
            raise FetchError("a symbolic link with an endless target", where=_shown(member.name))
        with member.open() as file:
            target = file.read(_TARGET + 1)
        _make_folders(folder, list(path.relative_to(folder).parts[:-1]))
        if os.path.lexists(path) or not target or b"\0" in target:
            raise FetchError("the archive holds a name twice, or an empty link", where=_shown(member.name))
        path.symlink_to(os.fsdecode(target))


def _placed(members: list[_Member]) -> Iterator[tuple[list[str], _Member]]:
    """Each member with the parts of its path below the target: without the one folder of all, if there is one."""
    split = [(_parts(member), member) for member in members]
    split = [(parts, member) for parts, member in split if parts]
    tops = {parts[0] for parts, _ in split}
    nested = len(tops) == 1 and all(len(parts) > 1 or member.kind == "folder" for parts, member in split)
    for parts, member in split:
        yield parts[1:] if nested else parts, member


def _parts(member: _Member) -> list[str]:
    name = member.name
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise FetchError("the archive holds a name that leads out of it", where=_shown(name))
    return parts


def _make_folders(folder: Path, parts: list[str]) -> None:
    path = folder
    for part in parts:
        path = path / part
        try:
            path.mkdir()
        except FileExistsError:
            if path.is_symlink() or not path.is_dir():
                raise FetchError(
                    "the archive holds a name twice, as a folder and as a file", where=_shown(part)
                ) from None


def _write(member: _Member, path: Path, tick: Callable[[], None]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o755 if member.executable else 0o644)
    except FileExistsError:
        raise FetchError("the archive holds a name twice", where=_shown(member.name)) from None
    with os.fdopen(descriptor, "wb") as file, member.open() as contents:
        left = member.size
        while left and (piece := contents.read(min(_PIECE, left))):
            left -= len(piece)
            file.write(piece)
            tick()


def check_room(size: int, folder: Path, limit: int) -> None:
    """Refuse what is too large.

    Args:
        size: Bytes to write.
        folder: Where.
        limit: Bytes that are allowed.

    Raises:
        FetchError: It is more than is allowed, or than there is room for.
    """
    if size > limit:
        raise FetchError(
            f"{_human(size)}: more than is fetched ({_human(limit)})", hint="raise source.limit if it is meant"
        )
    free = shutil.disk_usage(folder).free
    if size > free:
        raise FetchError(f"{_human(size)} need to be written, and {_human(free)} are free", where=_shown(str(folder)))


def _human(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _shown(name: str) -> str:
    return one_line(name, 200)

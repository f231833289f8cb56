"""A wheel as a zip archive, trusted with nothing: sizes, names and kinds are looked at before anything is unpacked.

The hash in the lock says that it is the wheel that was meant, not that it means well.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from hpcbinder.errors import BuildError
from hpcbinder.text import one_line

MOST_MEMBERS = 200_000
_MOST_BYTES = 64 << 30
_FREE_BYTES = 1 << 30
"""Up to here a wheel may unpack to as much as it likes; beyond, to `_RATIO` times its own size."""
_RATIO = 100
_DIRECTORY_BYTES = 32 << 20
"""Of the zip's list of members, which is read whole."""
_LONGEST_PATH = 2000
_PIECE = 1 << 20
_UTF8, _ENCRYPTED = 0x800, 0x1 | 0x40 | 0x2000
_ENTRY = struct.Struct("<4s24x3H12x")
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")


class Refused(BuildError):
    """A wheel that is not installed. The message is to be completed with the package's name: see `refusal`."""


def refusal(name: str, version: str, error: Exception) -> BuildError:
    """The error that a person sees."""
    message = error.message if isinstance(error, BuildError) else str(error)
    hint = error.hint if isinstance(error, BuildError) else None
    return BuildError(
        f"the wheel of {name} {version} is refused: {message}",
        hint=hint or "nothing of it was installed; ask for another version, or tell the package's authors",
    )


@dataclass(frozen=True)
class Member:
    """A file in a wheel.

    Attributes:
        name: Its path, checked: relative, no `..`, only names that can be.
        size: Bytes it says it unpacks to; `pieces` gives just as many or fails.
        executable: Whether any execute bit is set.
    """

    name: str
    size: int
    executable: bool


class Archive:
    """An open wheel; a context manager.

    Args:
        path: The file.

    Attributes:
        members: All files, in the archive's order, by name.

    Raises:
        Refused: It is no zip archive, or one that no wheel is.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            size = os.fstat(self._file.fileno()).st_size
            _check_directory(self._file.fileno(), size)
            try:
                self._zip = zipfile.ZipFile(self._file)
                infos = self._zip.infolist()
            except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
                raise Refused(f"it is no zip archive that can be read ({one_line(str(error), 100)})") from None
            self._infos = {info.filename: info for info in infos if not info.is_dir()}
            self.members = {member.name: member for member in _checked(infos, size)}
        except BaseException:
            self._file.close()
            raise

    def pieces(self, name: str) -> Iterator[bytes]:
        """The content of a member, in pieces of at most a megabyte.

        Raises:
            Refused: It is not what the archive's list says.
        """
        info = self._infos[name]
        left = info.file_size
        try:
            with self._zip.open(info) as stream:
                while left:
                    piece = stream.read(min(left, _PIECE))
                    if not piece:
                        raise Refused(f"{one_line(name, 200)!r} is shorter than the archive says")
                    left -= len(piece)
                    yield piece
                # What is not read to its end is not checked against its sum.
                if stream.read(1):
                    raise Refused(f"{one_line(name, 200)!r} is longer than the archive says")
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError, ValueError) as error:
            raise Refused(f"{one_line(name, 200)!r} cannot be unpacked ({one_line(str(error), 100)})") from None

    def read(self, name: str, limit: int) -> bytes:
        """A small member as a whole.

        Raises:
            Refused: It is not there, or has more than `limit` bytes.
        """
        member = self.members.get(name)
        if member is None:
            raise Refused(f"it has no {one_line(name, 200)}")
        if member.size > limit:
            raise Refused(f"{one_line(name, 200)!r} has {member.size} bytes")
        return b"".join(self.pieces(name))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _check_directory(file: int, size: int) -> None:
    """Look at how much the archive wants to have read as its list of members, before that is done (PKWARE's
    APPNOTE.TXT, 4.3.14 to 4.3.16)."""
    tail = os.pread(file, _END.size + 0xFFFF, max(0, size - _END.size - 0xFFFF))
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise Refused("it is no zip archive")
    _, _, _, _, count, length, _, comment = _END.unpack_from(tail, at)
    if len(tail) - at - _END.size != comment:
        raise Refused("something follows the archive's end")
    end = size - len(tail) + at
    before = end - _END64_LOCATOR.size
    if before >= 0:
        signature, _, where, _ = _END64_LOCATOR.unpack(os.pread(file, _END64_LOCATOR.size, before))
        if signature == b"PK\6\7":
            # Python's zipfile takes the record in front of the locator, wherever that leads.
            end = before - _END64.size
            if where != end:
                raise Refused("its archive has two ends")
            record = os.pread(file, _END64.size, where)
            if len(record) < _END64.size or not record.startswith(b"PK\6\6"):
                raise Refused("it is no zip archive")
            count, length = _END64.unpack(record)[7:9]
    if count > MOST_MEMBERS:
        raise Refused(f"it has more than {MOST_MEMBERS} files")
    if length > min(_DIRECTORY_BYTES, count * (_ENTRY.size + _LONGEST_PATH), end):
        raise Refused("its list of files is too long")
    if _entries(os.pread(file, length, end - length)) != count:
        raise Refused("its list of files is not as long as it says")


def _entries(directory: bytes) -> int:
    """How many members the list really has, which Python's zipfile reads to its end; -1 if it is none."""
    count = at = 0
    while at < len(directory):
        if len(directory) - at < _ENTRY.size:
            return -1
        signature, *lengths = _ENTRY.unpack_from(directory, at)
        if signature != b"PK\1\2":
            return -1
        at += _ENTRY.size + sum(lengths)
        count += 1
    return count if at == len(directory) else -1


def _checked(infos: list[zipfile.ZipInfo], size: int) -> Iterator[Member]:
    if len(infos) > MOST_MEMBERS:
        raise Refused(f"it has more than {MOST_MEMBERS} files")
    packed = sum(info.compress_size for info in infos)
    unpacked = sum(info.file_size for info in infos)
    if packed > size:
        raise Refused("its files lie over each other in the archive")
    if unpacked > _MOST_BYTES or unpacked > max(_FREE_BYTES, _RATIO * size):
        raise Refused(f"its {size} bytes unpack to {unpacked}")
    seen: set[str] = set()
    for info in infos:
        name = checked_name(info.orig_filename.rstrip("/") if info.is_dir() else info.orig_filename)
        if name in seen:
            raise Refused(f"it has {name!r} twice")
        seen.add(name)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG):
            raise Refused(f"{name!r} is a link or a device")
        if info.flag_bits & _ENCRYPTED:
            raise Refused(f"{name!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused(f"{name!r} is packed with what no wheel uses")
        if not info.is_dir():
            yield Member(name, info.file_size, bool((info.external_attr >> 16) & 0o111))
        elif info.file_size:
            raise Refused(f"{name!r} is a folder with content")


def checked_name(name: str) -> str:
    """A path that can be installed, as it is.

    Raises:
        Refused: It leaves its folder, or is none.
    """
    parts = name.split("/")
    if (
        not name.isprintable()  # control characters, surrogates, what changes the direction of text
        or "\\" in name
        or not all(parts)
        or {".", ".."} & set(parts)
        or (len(name) > 60 and (len(name.encode()) > _LONGEST_PATH or any(len(part.encode()) > 255 for part in parts)))
    ):
        raise Refused(f"{one_line(name, 200)!r} is no path that can be installed")
    if ".wh." in name and any(part.startswith(".wh.") for part in parts):
        # A layer's way to say that a file is gone (OCI image spec, layer.md, "Whiteouts").
        raise Refused(f"{one_line(name, 200)!r} would take away files of others")
    return name

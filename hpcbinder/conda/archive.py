"""A conda package as it comes, trusted with nothing: unpacked into a folder as numbered files, its names only noted.

Both formats (docs.conda.io, "Package specification"; CEP 35): `.tar.bz2`, and `.conda`, a zip with a zstd tar of the
files and one of what is said about them. The hash in the lock says that it is the package that was meant, not that it
means well.
"""

from __future__ import annotations

import bz2
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import HashedStream, TarMember, TarReader
from hpcbinder.wheels import Archive, Refused, checked_name

MOST_MEMBERS = 500_000
_MOST_BYTES = 64 << 30
_FREE_BYTES = 2 << 30
"""Up to here a package may unpack to as much as it likes; beyond, to `_RATIO` times its own size."""
_RATIO = 100
_INFO_BYTES = 256 << 20
"""Of a file below `info/` that is read whole."""
_WINDOW = 1 << 27
"""Bytes of memory that a zstd frame may ask for: that of `zstd --ultra -22`."""
_PIECE = 1 << 20
_FILE, _LINK, _SYMLINK, _DIRECTORY = b"0", b"1", b"2", b"5"


@dataclass(frozen=True)
class Packed:
    """A file or a symbolic link of a package.

    Attributes:
        executable: Whether its owner may run it.
        content: Where its bytes are; None for a link.
        size: Bytes.
        target: Of a link, as it stands there.
    """

    executable: bool = False
    content: Path | None = None
    size: int = 0
    target: str = ""


@dataclass
class Unpacked:
    """What a package has.

    Attributes:
        files: Path -> file, without those below `info/`.
        info: Path below `info/` -> content, of those that are read.
    """

    files: dict[str, Packed] = field(default_factory=dict)
    info: dict[str, bytes] = field(default_factory=dict)


READ = frozenset({"index.json", "paths.json", "link.json", "has_prefix", "files", "no_link"})
"""Files below `info/` that an installer reads."""


def unpack(path: Path, filename: str, folder: Path) -> Unpacked:
    """Unpack a package.

    Args:
        path: The package.
        filename: Its name in the channel, which tells the format.
        folder: New folder for its files, all of them `0644` and called by numbers.

    Raises:
        Refused: It is damaged, or has what no package has.
        OSError: It cannot be read, or a file cannot be written.
    """
    folder.mkdir()
    taking = _Taking(folder, max(_FREE_BYTES, min(_MOST_BYTES, _RATIO * path.stat().st_size)))
    if filename.endswith(".conda"):
        with Archive(path) as archive:
            stem = filename.removesuffix(".conda")
            for name in (f"info-{stem}.tar.zst", f"pkg-{stem}.tar.zst"):
                if name not in archive.members:
                    raise Refused(f"it has no {name}")
                taking.tar(_unzstd(_Pieces(archive.pieces(name))))
    else:
        with path.open("rb") as file:
            taking.tar(cast("BinaryIO", _Bz2(file)))
    return taking.found


class _Taking:
    """Takes what tars hold, up to what a package may have in all."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.found = Unpacked()
        self._folder = folder
        self._left = limit
        self._numbers = itertools.count()

    def tar(self, stream: BinaryIO) -> None:
        hashed = HashedStream(stream)
        reader = TarReader(hashed)
        try:
            for member in reader:
                self._take(member, reader)
        except ConvertError as error:
            raise Refused(f"its archive is damaged: {error.message}") from None
        finally:
            hashed.close()

    def _take(self, member: TarMember, reader: TarReader) -> None:
        try:
            name = member.name.decode("utf-8").removeprefix("./").rstrip("/")
        except UnicodeDecodeError:
            raise Refused("the name of a file is not UTF-8") from None
        if member.kind == _DIRECTORY or not name:
            return
        checked_name(name)
        self._left -= 512
        if next(self._numbers) >= MOST_MEMBERS or self._left < member.size:
            raise Refused("it unpacks to more than any package does")
        if name.startswith("info/"):
            if (below := name.removeprefix("info/")) in READ and member.kind == _FILE:
                if member.size > _INFO_BYTES or below in self.found.info:
                    raise Refused(f"its {name} has {member.size} bytes or is there twice")
                self.found.info[below] = reader.read(member.size)
                self._left -= member.size
            return
        if name in self.found.files:
            raise Refused(f"it has {name!r} twice")
        self.found.files[name] = self._packed(name, member, reader)

    def _packed(self, name: str, member: TarMember, reader: TarReader) -> Packed:
        if member.kind == _SYMLINK:
            return Packed(target=_text(name, member.link))
        if member.kind == _LINK:
            other = self.found.files.get(_text(name, member.link).removeprefix("./"))
            if other is None or other.content is None:
                raise Refused(f"{name!r} is a link to what is not in the package")
            return other
        if member.kind != _FILE or member.extents is not None:
            raise Refused(f"{name!r} is neither a file nor a link")
        place = self._folder / str(next(self._numbers))
        left = member.size
        self._left -= left
        with place.open("xb") as out:
            while left:
                piece = reader.read(min(left, _PIECE))
                if not piece:
                    raise Refused("its archive breaks off")
                out.write(piece)
                left -= len(piece)
        return Packed(bool(member.mode & 0o100), place, member.size)


def _text(name: str, link: bytes) -> str:
    try:
        text = link.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        raise Refused(f"{name!r} is a link to nowhere")
    return text


class _Pieces(io.RawIOBase):
    """An iterator of bytes as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Some bytes, at most `size`; none at the end."""
        if not self._rest:
            self._rest = next(self._pieces, b"")
        found, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return found


def _unzstd(stream: io.RawIOBase) -> BinaryIO:
    import zstandard

    reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(
        cast("BinaryIO", stream), read_across_frames=True
    )
    return cast("BinaryIO", _Translated(reader))


class _Translated(io.RawIOBase):
    """A decompressing stream whose errors are ours."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        import zstandard

        try:
            return self._stream.read(size if size >= 0 else _PIECE)
        except zstandard.ZstdError as error:
            raise Refused(f"its archive is damaged: {error}") from None


class _Bz2(io.RawIOBase):
    """What a file of one or several bzip2 streams holds."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = bz2.BZ2File(file)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size if size >= 0 else _PIECE)
        except (OSError, EOFError) as error:
            raise Refused(f"its archive is damaged: {error}") from None

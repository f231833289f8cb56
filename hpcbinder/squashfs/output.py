"""Writing an image's parts at their places in an open file, and files that appear complete or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import superblock
from hpcbinder.squashfs.superblock import Superblock

_T = TypeVar("_T")
_PIECE = 1 << 20
"""Bytes that are written at once."""
_MOST_PARTS = 1024


class WriteError(ConvertError):
    """The file system does not take what is written: no fault of what is read."""


def write_at(file: int, data: bytes | bytearray | memoryview, position: int) -> None:
    """Write all of `data` at `position` of an open file.

    Raises:
        WriteError: The file system does not take it.
    """
    view = memoryview(data)
    while view:
        try:
            count = os.pwrite(file, view, position)
        except OSError as error:
            raise WriteError(f"cannot write the squashfs image: {error.strerror}") from None
        position += count
        view = view[count:]


class PieceWriter:
    """Writes what comes one after the other in large pieces, which cost the kernel half of what single blocks do.

    Args:
        file: Descriptor of the file.
        position: Where the first byte goes.

    Attributes:
        position: Where the next byte goes.
    """

    def __init__(self, file: int, position: int) -> None:
        self._file = file
        self._parts: list[bytes | bytearray | memoryview] = []
        self._written = self.position = position

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take what comes next; it is in the file once `flush` has returned.

        Raises:
            WriteError: The file system does not take it.
        """
        self._parts.append(data)
        self.position += len(data)
        if self.position - self._written >= _PIECE or len(self._parts) == _MOST_PARTS:
            self.flush()

    def flush(self) -> None:
        """Have all that was taken in the file.

        Raises:
            WriteError: The file system does not take it.
        """
        if self._parts:
            write_at(self._file, b"".join(self._parts), self._written)
            self._parts.clear()
        self._written = self.position

    def back_to(self, position: int) -> None:
        """Have what comes next written over what came before."""
        self.flush()
        self._written = self.position = position


def finish_image(file: int, offset: int, metadata: bytes, block: Superblock) -> int:
    """Write what follows the data, the padding, and at last the superblock.

    Args:
        file: Descriptor of the file.
        offset: Where in it the image begins.
        metadata: All that follows the data.
        block: The superblock.

    Returns:
        The image's bytes, with its padding.
    """
    size = -(-block.bytes_used // superblock.PADDING) * superblock.PADDING
    write_at(file, metadata + bytes(size - block.bytes_used), offset + block.inode_table)
    write_at(file, block.pack(), offset)
    return size


@contextmanager
def replacing(out: Path) -> Iterator[int]:
    """A new file that takes the place of `out` when the block ends well, and vanishes when not.

    Yields:
        Its descriptor, open for reading and writing.

    Raises:
        ConvertError: It cannot be made.
    """
    temporary = out.parent / f".{out.name}.{secrets.token_hex(8)}.tmp"
    try:
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ConvertError(f"cannot write: {error.strerror}", where=str(out)) from None
    try:
        try:
            yield file
            _finish(os.fsync, file, out)
        finally:
            os.close(file)
        _finish(temporary.replace, out, out)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _finish(step: Callable[[_T], object], argument: _T, out: Path) -> None:
    try:
        step(argument)
    except OSError as error:
        raise ConvertError(f"cannot write: {error.strerror}", where=str(out)) from None

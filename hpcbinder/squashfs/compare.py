"""Whether files of two images have the same content, without unpacking what is stored alike."""

from __future__ import annotations

from collections.abc import Iterator

from hpcbinder.squashfs import tree
from hpcbinder.squashfs.archive import Archive
from hpcbinder.squashfs.tree import Data, File

_CHUNK = 1 << 20


def same_content(one: Archive, first: File, other: Archive, second: File) -> bool:
    """Whether two files have the same bytes.

    Raises:
        ConvertError: An image is damaged.
    """
    if first.size != second.size:
        return False
    return _stored_alike(one, first, other, second) or _equal(one.pieces(first), other.pieces(second))


def _stored_alike(one: Archive, first: File, other: Archive, second: File) -> bool:
    """Whether the packed blocks are the same bytes, so that the content is."""
    if (one.superblock.compressor, one.superblock.block_size) != (
        other.superblock.compressor,
        other.superblock.block_size,
    ):
        return False
    a, b = first.data, second.data
    if bytes(a.words) != bytes(b.words) or (a.fragment == tree.NO_FRAGMENT) != (b.fragment == tree.NO_FRAGMENT):
        return False
    if not blocks_alike(one, a, other, b):
        return False
    if a.fragment == tree.NO_FRAGMENT:
        return True
    length = first.size % one.superblock.block_size
    return one.tail(first, length) == other.tail(second, length)


def blocks_alike(one: Archive, first: Data, other: Archive, second: Data) -> bool:
    """Whether the blocks of two files, which have the same size words, are stored as the same bytes.

    Raises:
        ConvertError: An image is cut off.
    """
    if one is other and first.start == second.start:
        return True
    left, done = first.stored(), 0
    while left:
        length = min(left, _CHUNK)
        if one.read(first.start + done, length) != other.read(second.start + done, length):
            return False
        done += length
        left -= length
    return True


def _equal(left: Iterator[bytes | int], right: Iterator[bytes | int]) -> bool:
    one: bytes | int | None = next(left, None)
    other: bytes | int | None = next(right, None)
    while one is not None and other is not None:
        length = min(_length(one), _length(other))
        a, b = _head(one, length), _head(other, length)
        # A hole is zeros that are not stored.
        if isinstance(a, int):
            same = isinstance(b, int) or not any(b)
        else:
            same = not any(a) if isinstance(b, int) else a == b
        if not same:
            return False
        one, other = _rest(one, length), _rest(other, length)
        one = one or next(left, None)
        other = other or next(right, None)
    return one is other


def _length(piece: bytes | int) -> int:
    return piece if isinstance(piece, int) else len(piece)


def _head(piece: bytes | int, length: int) -> bytes | int:
    return length if isinstance(piece, int) else piece[:length]


def _rest(piece: bytes | int, length: int) -> bytes | int:
    return piece - length if isinstance(piece, int) else piece[length:]

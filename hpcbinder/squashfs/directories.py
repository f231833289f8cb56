"""Directory listings (format.adoc, "Directory Table").

A listing is a sequence of runs: a header (entries - 1, the inode table's block, a base inode number) and up to 256
entries (offset in that block, number relative to the base, type, name). Names are sorted by bytes: the kernel stops
looking at the first one that is greater.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs.metadata import BLOCK, MetadataWriter
from hpcbinder.squashfs.tree import Inode

_HEADER = struct.Struct("<III")
_ENTRY = struct.Struct("<HhHH")
_RUN = 256
MAX_NAME = 255
"""Bytes of a name; the format has room for 256 but Linux takes no such name."""


def write(
    entries: Iterable[tuple[bytes, Inode]], out: MetadataWriter, indexed: bool
) -> tuple[int, list[tuple[int, int, bytes]]]:
    """Write one directory's listing.

    Args:
        entries: Names in byte order, each with its numbered and already written inode.
        out: The directory table.
        indexed: Begin a run in each metadata block the listing reaches and make an index of them, so that a name in a
            long listing is found without reading all of it.

    Returns:
        Bytes of the listing, and the index: (offset in the listing, packed offset of the block, first name).
    """
    length = 0
    index: list[tuple[int, int, bytes]] = []
    run = bytearray()
    count = block = base = room = 0
    indexed_up_to = out.block
    for name, inode in entries:
        number, reference = inode.number, inode.reference
        delta, where = number - base, reference >> 16
        if (
            where != block
            or not count
            or count == _RUN
            or not -32768 <= delta <= 32767
            or (indexed and len(run) >= room)
        ):
            if count:
                out.write(_HEADER.pack(count - 1, block, base) + run)
                length += _HEADER.size + len(run)
            if indexed and out.block != indexed_up_to:
                index.append((length, out.block, name))
                indexed_up_to = out.block
            count, block, base, delta = 0, where, number, 0
            room = BLOCK - out.offset - _HEADER.size
            run.clear()
        run += _ENTRY.pack(reference & 0xFFFF, delta, inode.type, len(name) - 1)
        run += name
        count += 1
    if count:
        out.write(_HEADER.pack(count - 1, block, base) + run)
        length += _HEADER.size + len(run)
    return length, index


def runs(data: bytes, position: int, length: int) -> dict[int, bytes]:
    """Where the runs of a listing that `parse` takes begin, in bytes from its start, each with its first name."""
    found = {}
    begin, end = position, position + length
    while position < end:
        count, _, _ = _HEADER.unpack_from(data, position)
        start = position - begin
        position += _HEADER.size
        for number in range(count + 1):
            _, _, _, size = _ENTRY.unpack_from(data, position)
            position += _ENTRY.size + size + 1
            if not number:
                found[start] = data[position - size - 1 : position]
    return found


def parse(data: bytes, position: int, length: int) -> Iterator[tuple[bytes, int, int]]:
    """Read one directory's listing.

    Args:
        data: The unpacked directory table.
        position: Where the listing begins.
        length: Its bytes.

    Yields:
        Name, reference of its inode, basic type.

    Raises:
        ConvertError: It is damaged, or has a name no file system can show.
    """
    end = position + length
    if end > len(data):
        raise ConvertError("damaged squashfs image: a listing is cut off")
    while position < end:
        if position + _HEADER.size > end:
            raise ConvertError("damaged squashfs image: a listing is cut off")
        count, block, _ = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        if count >= _RUN:
            raise ConvertError("damaged squashfs image: a listing's run is too long")
        block <<= 16
        for _ in range(count + 1):
            if position + _ENTRY.size > end:
                raise ConvertError("damaged squashfs image: a listing is cut off")
            offset, _, kind, size = _ENTRY.unpack_from(data, position)
            position += _ENTRY.size
            name = data[position : position + size + 1]
            position += size + 1
            if position > end or size >= MAX_NAME or b"/" in name or b"\0" in name or name in (b".", b".."):
                raise ConvertError("damaged squashfs image: impossible file name")
            yield name, block | offset, kind

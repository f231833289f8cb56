"""Lookup tables (ids, fragments, export): fixed-size entries in metadata blocks, then a list of where the blocks are.

The superblock points at that list. (format.adoc, "Fragment Table", "Export Table", "ID Table")
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import metadata
from hpcbinder.squashfs.compressors import Compressor

FRAGMENT = struct.Struct("<QII")
"""Start, size word, unused."""


def pack(entries: bytes, compressor: Compressor, start: int) -> tuple[bytes, int]:
    """Pack a table.

    Args:
        entries: Its entries, one after the other.
        compressor: The image's.
        start: Where in the image the table will lie.

    Returns:
        Its bytes, and the offset in the image that the superblock points at.
    """
    packed = bytearray()
    places = []
    for begin in range(0, len(entries), metadata.BLOCK):
        places.append(start + len(packed))
        packed += metadata.pack_block(entries[begin : begin + metadata.BLOCK], compressor)
    pointers = start + len(packed)
    return bytes(packed) + struct.pack(f"<{len(places)}Q", *places), pointers


def first_block(read: Callable[[int, int], bytes], pointers: int) -> int:
    """Offset of a table's first block, where whatever lies before it ends.

    Args:
        read: Gives exactly (offset, length) of the image, or raises.
        pointers: What the superblock says.
    """
    (start,) = struct.unpack("<Q", read(pointers, 8))
    return int(start)


def unpack(
    read: Callable[[int, int], bytes],
    pointers: int,
    count: int,
    width: int,
    compressor: Compressor,
    *,
    end: int | None = None,
) -> bytes:
    """Read a table.

    Args:
        read: Gives exactly (offset, length) of the image, or raises.
        pointers: What the superblock says.
        count: Entries.
        width: Bytes of one.
        compressor: The image's.
        end: Where its blocks end, if not at their list.

    Raises:
        ConvertError: It is damaged or does not lie in front of its list.
    """
    size = count * width
    blocks = -(-size // metadata.BLOCK)
    places = struct.unpack(f"<{blocks}Q", read(pointers, 8 * blocks))
    end = pointers if end is None else end
    if list(places) != sorted(set(places)) or places[-1] >= end:
        raise ConvertError("damaged squashfs image: a lookup table is out of order")
    unpacked = metadata.unpack(read(places[0], end - places[0]), compressor, blocks * metadata.BLOCK)
    if any(unpacked.blocks.get(place - places[0]) != n * metadata.BLOCK for n, place in enumerate(places)):
        raise ConvertError("damaged squashfs image: a lookup table is out of order")
    if len(unpacked.data) != size:
        raise ConvertError("damaged squashfs image: a lookup table is cut off")
    return unpacked.data

"""The superblock: the first 96 bytes of an image (squashfs-tools-ng, doc/format.adoc, "The Superblock")."""

from __future__ import annotations

import struct
from typing import NamedTuple

from hpcbinder.errors import ConvertError

MAGIC = 0x73717368
SIZE = 96
NONE = 0xFFFFFFFFFFFFFFFF
"""The offset of a table that is not there."""

NO_FRAGMENTS, EXPORTABLE, NO_XATTRS, COMPRESSOR_OPTIONS = 0x10, 0x80, 0x200, 0x400
PADDING = 4096
"""Images are padded to this, so that a loop device shows all of them."""

_LAYOUT = struct.Struct("<IIIIIHHHHHHQQQQQQQQ")


class Superblock(NamedTuple):
    """Its fields, in their order on disk. Offsets are bytes from the image's start."""

    magic: int
    inode_count: int
    mkfs_time: int
    block_size: int
    fragment_count: int
    compressor: int
    block_log: int
    flags: int
    id_count: int
    major: int
    minor: int
    root: int
    bytes_used: int
    id_table: int
    xattr_table: int
    inode_table: int
    directory_table: int
    fragment_table: int
    export_table: int

    def pack(self) -> bytes:
        """Its 96 bytes."""
        return _LAYOUT.pack(*self)


def parse(raw: bytes, available: int) -> Superblock:
    """Read and check a superblock.

    Args:
        raw: The image's first 96 bytes.
        available: Bytes there are from the image's start to the file's end.

    Raises:
        ConvertError: Not a squashfs 4.0 image, or its parts do not lie where they can.
    """
    if len(raw) < SIZE:
        raise ConvertError("not a squashfs image: too short")
    block = Superblock._make(_LAYOUT.unpack_from(raw))
    if block.magic != MAGIC:
        raise ConvertError("not a squashfs image: wrong magic number")
    if (block.major, block.minor) != (4, 0):
        raise ConvertError(f"squashfs version {block.major}.{block.minor} is not supported", hint="4.0 is")
    if not 12 <= block.block_log <= 20 or block.block_size != 1 << block.block_log:
        raise ConvertError("damaged squashfs image: impossible block size")
    if block.bytes_used > available:
        raise ConvertError(f"squashfs image is cut off: {available} of {block.bytes_used} bytes")
    if not SIZE <= block.inode_table < block.directory_table < block.bytes_used:
        raise ConvertError("damaged squashfs image: its tables are out of order")
    if block.id_count == 0 or block.inode_count == 0:
        raise ConvertError("damaged squashfs image: empty tables")
    for table in (block.id_table, block.fragment_table, block.export_table, block.xattr_table):
        if table != NONE and not block.directory_table < table <= block.bytes_used:
            raise ConvertError("damaged squashfs image: a table lies outside")
    if block.id_table == NONE or (block.fragment_count and block.fragment_table == NONE):
        raise ConvertError("damaged squashfs image: a table is missing")
    return block

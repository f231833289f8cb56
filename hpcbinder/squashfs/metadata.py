"""Metadata blocks: 8 KiB pieces of a table, each packed on its own behind a 16-bit header.

The header's low 15 bits are the stored length; bit 15 says stored uncompressed. A record may span blocks. A reference
is (the block's offset from the table's start) << 16 | offset in the unpacked block. (format.adoc, "Packing Metadata")
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs.compressors import Compressor

BLOCK = 8192
_RAW = 0x8000


def pack_block(data: bytes, compressor: Compressor) -> bytes:
    """One block of at most 8192 bytes, with its header; stored as it is where packing gains nothing."""
    packed = compressor.compress(data)
    if len(packed) < len(data):
        return struct.pack("<H", len(packed)) + packed
    return struct.pack("<H", len(data) | _RAW) + data


def raw_block(data: bytes) -> bytes:
    """One block that is not to be packed (what tells how to unpack the others), with its header; nothing of nothing."""
    return struct.pack("<H", len(data) | _RAW) + data if data else b""


class MetadataWriter:
    """Collects a table and packs it block by block."""

    def __init__(self, compressor: Compressor) -> None:
        self._compressor = compressor
        self._packed = bytearray()
        self._buffer = bytearray()

    @property
    def block(self) -> int:
        """Where the current block starts, in packed bytes from the table's start."""
        return len(self._packed)

    @property
    def offset(self) -> int:
        """Bytes in the current block; the next one written lies here."""
        return len(self._buffer)

    def write(self, data: bytes | bytearray) -> int:
        """Append a record, or a part of one; gives the reference of its first byte."""
        buffer = self._buffer
        reference = len(self._packed) << 16 | len(buffer)
        buffer += data
        while len(buffer) >= BLOCK:
            self._packed += pack_block(bytes(buffer[:BLOCK]), self._compressor)
            del buffer[:BLOCK]
        return reference

    def finish(self) -> bytearray:
        """Pack the rest and hand out the table."""
        if self._buffer:
            self._packed += pack_block(bytes(self._buffer), self._compressor)
            self._buffer.clear()
        return self._packed


class Metadata(NamedTuple):
    """An unpacked table.

    Attributes:
        data: All its bytes.
        blocks: A block's packed offset from the table's start -> where its bytes begin in `data`.
    """

    data: bytes
    blocks: dict[int, int]

    def position(self, block: int, offset: int) -> int:
        """Where in `data` a reference points.

        Raises:
            ConvertError: Nowhere.
        """
        start = self.blocks.get(block)
        if start is None or offset >= BLOCK or start + offset > len(self.data):
            raise ConvertError("damaged squashfs image: a reference points outside its table")
        return start + offset


def unpack(packed: bytes, compressor: Compressor, limit: int) -> Metadata:
    """Unpack a whole table.

    Args:
        packed: Its bytes in the image.
        compressor: The image's.
        limit: Most bytes that may come out.

    Raises:
        ConvertError: It is damaged or holds more than `limit` bytes.
    """
    data = bytearray()
    blocks: dict[int, int] = {}
    position = 0
    while position < len(packed):
        if position + 2 > len(packed):
            raise ConvertError("damaged squashfs image: a metadata block is cut off")
        (header,) = struct.unpack_from("<H", packed, position)
        length = header & ~_RAW
        stored = packed[position + 2 : position + 2 + length]
        if not 0 < length <= BLOCK or len(stored) != length:
            raise ConvertError("damaged squashfs image: a metadata block is cut off")
        blocks[position] = len(data)
        data += stored if header & _RAW else compressor.decompress(stored, BLOCK)
        if len(data) > limit:
            raise ConvertError(f"squashfs image has more than {limit >> 20} MiB of metadata")
        position += 2 + length
    return Metadata(bytes(data), blocks)

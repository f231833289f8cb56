"""The compressors an image may be packed with.

Each turns one block into one self-contained stream, and back with a bound on what comes out, since a stream may claim
to hold anything. The numbers are those of the squashfs 4.0 superblock (Linux, fs/squashfs/squashfs_fs.h).
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from typing import Protocol

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs.options import LEVELS

GZIP, XZ, ZSTD = 1, 4, 6
NAMES = {GZIP: "gzip", 2: "lzma", 3: "lzo", XZ: "xz", 5: "lz4", ZSTD: "zstd"}

XZ_MEMORY = 64 << 20
"""Bytes a stream's dictionary may ask for: squashfs allows dictionaries up to its block size (1 MiB)."""


class Compressor(Protocol):
    """Packs and unpacks blocks; usable from several threads at once."""

    @property
    def id(self) -> int:
        """The superblock's number for it."""

    def compress(self, data: bytes) -> bytes | bytearray:
        """Pack one block."""

    def decompress(self, data: bytes, limit: int) -> bytes:
        """Unpack one block.

        Args:
            data: What `compress` gave.
            limit: Most bytes that may come out.

        Raises:
            ConvertError: It is damaged, or holds more than `limit` bytes.
        """


class Gzip:
    """zlib streams (RFC 1950), written by libdeflate where it is installed and by zlib where not."""

    id = GZIP

    def __init__(self, level: int) -> None:
        self._compress: Callable[[bytes, int], bytes | bytearray]
        try:
            import deflate
        except ImportError:
            self._compress, self._level = zlib.compress, min(level, 9)
        else:
            self._compress, self._level = deflate.zlib_compress, level

    def compress(self, data: bytes) -> bytes | bytearray:
        """See Compressor."""
        return self._compress(data, self._level)

    def decompress(self, data: bytes, limit: int) -> bytes:
        """See Compressor."""
        stream = zlib.decompressobj()
        try:
            unpacked = stream.decompress(data, limit + 1)
        except zlib.error as error:
            raise ConvertError(f"damaged squashfs block: {error}") from None
        if len(unpacked) > limit or not stream.eof:
            raise ConvertError("damaged squashfs block: its length is not what it should be")
        return unpacked


class Zstd:
    """Zstandard frames (RFC 8878)."""

    id = ZSTD

    def __init__(self, level: int) -> None:
        self._level = level
        self._thread = threading.local()

    def compress(self, data: bytes) -> bytes | bytearray:
        """See Compressor."""
        packer = getattr(self._thread, "packer", None)
        if packer is None:
            import zstandard

            # One per thread: a compressor object must not be used by two at once.
            packer = self._thread.packer = zstandard.ZstdCompressor(level=self._level, write_checksum=False)
        packed: bytes = packer.compress(data)
        return packed

    def decompress(self, data: bytes, limit: int) -> bytes:
        """See Compressor."""
        import zstandard

        try:
            # A frame's header may claim a size, and that much would be allocated.
            if zstandard.frame_content_size(data) > limit:
                raise ConvertError("damaged squashfs block: its length is not what it should be")
            return zstandard.ZstdDecompressor().decompress(data, max_output_size=limit)
        except zstandard.ZstdError as error:
            raise ConvertError(f"damaged squashfs block: {error}") from None


class Xz:
    """xz streams: read only."""

    id = XZ

    def compress(self, data: bytes) -> bytes | bytearray:
        """Refuse: no runtime needs new images in xz.

        Raises:
            ConvertError: Always.
        """
        raise ConvertError("squashfs images in xz can be read but not written", hint="use gzip or zstd")

    def decompress(self, data: bytes, limit: int) -> bytes:
        """See Compressor."""
        import lzma

        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
        try:
            unpacked = stream.decompress(data, limit + 1)
        except lzma.LZMAError as error:
            raise ConvertError(f"damaged squashfs block: {error}") from None
        if len(unpacked) > limit or not stream.eof:
            raise ConvertError("damaged squashfs block: its length is not what it should be")
        return unpacked


def by_name(name: str, level: int) -> Compressor:
    """The compressor that writes `name` (`gzip` or `zstd`) at `level`."""
    return Gzip(level) if name == "gzip" else Zstd(level)


def by_id(number: int) -> Compressor:
    """The compressor of an image that is there, at its default level.

    Args:
        number: The superblock's number.

    Raises:
        ConvertError: None we can read.
    """
    if number == GZIP:
        return Gzip(LEVELS["gzip"][2])
    if number == ZSTD:
        return Zstd(LEVELS["zstd"][2])
    if number == XZ:
        return Xz()
    raise ConvertError(
        f"squashfs compressor {NAMES.get(number, number)} is not supported", hint="gzip, zstd and xz are"
    )

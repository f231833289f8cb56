"""The compressors an image may be packed with.

Each turns one block into one self-contained stream, and back with a bound on what comes out, since a stream may claim
to hold anything. The numbers are those of the squashfs 4.0 superblock (Linux, fs/squashfs/squashfs_fs.h).
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs.options import LEVELS

GZIP, LZO, XZ, LZ4, ZSTD = 1, 3, 4, 5, 6
NAMES = {GZIP: "gzip", 2: "lzma", LZO: "lzo", XZ: "xz", LZ4: "lz4", ZSTD: "zstd"}
WRITABLE = frozenset((GZIP, XZ, LZ4, ZSTD))

_XZ_DICTIONARY = 8192
XZ_MEMORY = 64 << 20
"""Bytes a stream's dictionary may ask for: squashfs allows dictionaries up to its block size (1 MiB)."""


Buffer: TypeAlias = "bytes | bytearray | memoryview"


class Compressor(Protocol):
    """Packs and unpacks blocks; usable from several threads at once."""

    @property
    def id(self) -> int:
        """The superblock's number for it."""

    @property
    def options(self) -> bytes:
        """What a reader must be told: the image's compressor options; empty where there is nothing to tell."""

    def compress(self, data: Buffer) -> bytes | bytearray:
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
    """zlib streams (RFC 1950), written and read by libdeflate where it is installed and by zlib where not."""

    id = GZIP
    options = b""

    def __init__(self, level: int) -> None:
        self._compress: Callable[[Buffer, int], bytes | bytearray]
        self._decompress: Callable[[bytes, int], bytes | bytearray] | None
        try:
            import deflate
        except ImportError:
            self._compress, self._level, self._decompress = zlib.compress, min(level, 9), None
        else:
            self._compress, self._level, self._decompress = deflate.zlib_compress, level, deflate.zlib_decompress

    def compress(self, data: Buffer) -> bytes | bytearray:
        """See Compressor."""
        return self._compress(data, self._level)

    def decompress(self, data: bytes, limit: int) -> bytes:
        """See Compressor."""
        if self._decompress is not None:
            try:
                return bytes(self._decompress(data, limit))
            except Exception:  # it does not say why
                pass
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
    options = b""

    def __init__(self, level: int) -> None:
        self._level = level
        self._thread = threading.local()

    def compress(self, data: Buffer) -> bytes | bytearray:
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
    """xz streams."""

    id = XZ
    options = b""

    def __init__(self, level: int) -> None:
        self._level = level

    def compress(self, data: Buffer) -> bytes | bytearray:
        """See Compressor."""
        import lzma

        # The kernel sets aside a dictionary of a block's size (fs/squashfs/xz_wrapper.c) and checks CRC-32 only.
        size = max(len(data), _XZ_DICTIONARY)
        filters = [{"id": lzma.FILTER_LZMA2, "preset": self._level, "dict_size": size}]
        return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)

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


class Lz4:
    """Single LZ4 blocks (lz4_Block_format.md), without a frame."""

    id = LZ4

    def __init__(self, level: int) -> None:
        self._level = level
        # Version 1, the block format; and whether blocks were made with the slower search: readers refuse an image
        # without (fs/squashfs/lz4_wrapper.c, lz4_comp_opts).
        self.options = struct.pack("<II", 1, level > 1)

    def compress(self, data: Buffer) -> bytes | bytearray:
        """See Compressor."""
        import lz4.block

        packed: bytes
        if self._level == 1:
            packed = lz4.block.compress(data, store_size=False)
        else:
            packed = lz4.block.compress(data, mode="high_compression", compression=self._level, store_size=False)
        return packed

    def decompress(self, data: bytes, limit: int) -> bytes:
        """See Compressor."""
        import lz4.block

        try:
            unpacked: bytes = lz4.block.decompress(data, uncompressed_size=limit)
        except (lz4.block.LZ4BlockError, ValueError) as error:
            raise ConvertError(f"damaged squashfs block: {error}") from None
        return unpacked


class Lzo:
    """LZO1X blocks: read only, with the library that squashfs-tools use too.

    Raises:
        ConvertError: The library is not there.
    """

    id = LZO
    options = b""

    def __init__(self) -> None:
        import ctypes

        try:
            self._decompress: Any = ctypes.CDLL("liblzo2.so.2").lzo1x_decompress_safe
        except (OSError, AttributeError):
            raise ConvertError(
                "the squashfs image is compressed with lzo, and there is no liblzo2 here to read it with",
                hint="install liblzo2-2 (Debian) or lzo (Red Hat)",
            ) from None
        pointer = ctypes.c_void_p
        self._decompress.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, pointer, ctypes.POINTER(ctypes.c_size_t), pointer,
        ]  # fmt: skip
        self._decompress.restype = ctypes.c_int

    def compress(self, data: Buffer) -> bytes | bytearray:
        """Refuse: no runtime needs new images in lzo.

        Raises:
            ConvertError: Always.
        """
        raise ConvertError("squashfs images in lzo can be read but not written", hint="use gzip, zstd, xz or lz4")

    def decompress(self, data: bytes, limit: int) -> bytes:
        """See Compressor."""
        import ctypes

        out = ctypes.create_string_buffer(limit)
        length = ctypes.c_size_t(limit)
        if self._decompress(data, len(data), out, ctypes.byref(length), None):
            raise ConvertError("damaged squashfs block: no LZO data, or more than fit")
        return out.raw[: length.value]


_WRITERS: dict[str, Callable[[int], Compressor]] = {"gzip": Gzip, "zstd": Zstd, "xz": Xz, "lz4": Lz4}


def by_name(name: str, level: int) -> Compressor:
    """The compressor that writes `name` (`gzip`, `zstd`, `xz` or `lz4`) at `level`."""
    return _WRITERS[name](level)


def by_id(number: int) -> Compressor:
    """The compressor of an image that is there, at its default level.

    Args:
        number: The superblock's number.

    Raises:
        ConvertError: None we can read.
    """
    name = NAMES.get(number, str(number))
    if name in _WRITERS:
        return _WRITERS[name](LEVELS[name][2])
    if number == LZO:
        return Lzo()
    raise ConvertError(f"squashfs compressor {name} is not supported", hint="gzip, zstd, xz, lz4 and lzo are")

"""Undoing the compression of layers."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, cast

from hpcbinder.errors import ConvertError

_BUFFER = 1 << 16
"""Less than readers of gzip and zstd ask for, so that what they read is not copied once more."""


def uncompressed(raw: io.RawIOBase, where: str) -> BinaryIO:
    """The stream without its compression (gzip, zstd), told by its first bytes: a manifest's media type may be missing
    or wrong.

    Args:
        raw: A layer's bytes; belongs to what is returned.
        where: What to name in an error.

    Returns:
        A stream whose `read` raises ConvertError where the compressed data is damaged.
    """
    stream = io.BufferedReader(raw, _BUFFER)
    head = stream.peek(4)[:4]
    if head[:2] == b"\x1f\x8b":
        return cast(BinaryIO, _Decompressor(_gzip_file(stream), where))
    if head == b"\x28\xb5\x2f\xfd":
        import zstandard

        reader = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
        return cast(BinaryIO, _Decompressor(reader, where))
    return stream


def _gzip_file(stream: BinaryIO) -> Any:
    """A reader of gzip: ISA-L's where it is installed, which takes 40 % of zlib's time, and zlib's where not."""
    try:
        from isal import igzip
    except ImportError:
        import gzip

        return gzip.GzipFile(fileobj=stream, mode="rb")
    return igzip.IGzipFile(fileobj=stream, mode="rb")  # type: ignore[no-untyped-call]


class _Decompressor(io.RawIOBase):
    """What another stream decompresses to; damage in it is one clear error.

    Its `read` gives as many bytes as were asked for, as the libraries' do, so that no buffer stands between and copies.
    """

    def __init__(self, stream: Any, where: str) -> None:
        super().__init__()
        self._stream = stream
        self._where = where

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return self.readall()
        try:
            return cast(bytes, self._stream.read(size))
        except Exception as error:  # each library has its own: EOFError, zlib.error, BadGzipFile, ZstdError
            raise ConvertError(f"a compressed layer is damaged: {error}", where=self._where) from error

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        block = self.read(len(view))
        view[: len(block)] = block
        return len(block)

"""Compressing layers for a registry: the same bytes for the same layer, on all cores, in bounded memory."""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

from hpcbinder.process import usable_cores
from hpcbinder.registry.manifest import Descriptor

_BLOCK = 1 << 20
_LEVEL = 6


@dataclass(frozen=True)
class Compressed:
    """A layer, compressed.

    Attributes:
        diff_id: `sha256:…` of what was compressed.
        blob: What came out.
    """

    diff_id: str
    blob: Descriptor


def compress(stream: BinaryIO, out: BinaryIO) -> Compressed:
    """Compress with gzip.

    Each block is a gzip member of its own (RFC 1952, 2.2: a file is a series of members), as pigz and bgzip do: they
    are compressed side by side, by libdeflate, and the bytes depend on nothing but the content.

    Args:
        stream: Read to its end.
        out: Written to.
    """
    import deflate

    plain, packed, size = hashlib.sha256(), hashlib.sha256(), 0
    threads = max(1, min(8, usable_cores()))
    waiting: deque[Future[bytearray]] = deque()

    def take() -> int:
        member = waiting.popleft().result()
        packed.update(member)
        out.write(member)
        return len(member)

    with ThreadPoolExecutor(threads, thread_name_prefix="gzip") as pool:
        while block := _full(stream):
            plain.update(block)
            waiting.append(pool.submit(deflate.gzip_compress, block, _LEVEL))
            if len(waiting) > 2 * threads:
                size += take()
        if not waiting and not size:  # an empty file is no gzip file
            waiting.append(pool.submit(deflate.gzip_compress, b"", _LEVEL))
        while waiting:
            size += take()
    return Compressed(f"sha256:{plain.hexdigest()}", Descriptor(f"sha256:{packed.hexdigest()}", size))


def _full(stream: BinaryIO) -> bytes:
    """A whole block, except at the end: what a pipe happens to give must not show in the result."""
    pieces, size = [], 0
    while size < _BLOCK and (piece := stream.read(_BLOCK - size)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)

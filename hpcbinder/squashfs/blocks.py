"""File contents into data blocks and fragments, packed on all cores, in an order that does not depend on how many.

A file shorter than a block goes into a fragment block that it shares; a longer one has blocks of its own, its last one
shorter. A block of zeros is a hole. Files with the same bytes are stored once.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import tree
from hpcbinder.squashfs.compressors import Compressor
from hpcbinder.squashfs.inodes import MAX_WORDS
from hpcbinder.squashfs.output import write_at
from hpcbinder.squashfs.tree import Data

if TYPE_CHECKING:
    from concurrent.futures import Future

_EMPTY = Data()


class DataWriter:
    """Writes the data part of an image; a context manager that ends its threads.

    Memory is bounded by a queue of blocks on their way: eight per job.

    Args:
        file: Descriptor of the file to write.
        position: Where the data begin.
        block_size: Bytes per block.
        compressor: What packs them.
        jobs: Threads that pack.
    """

    def __init__(self, file: int, position: int, block_size: int, compressor: Compressor, jobs: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._file = file
        self._position = position
        self._block_size = block_size
        self._compressor = compressor
        self._zeros = bytes(block_size)
        self._tail = bytearray()
        self._fragments: list[tuple[int, int]] = []
        self._fragment = 0
        self._known: dict[bytes, Data] = {}
        self._words = 0
        self._limit = 8 * jobs
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="squashfs")
        # Blocks in the order of the output: where they belong (None: a fragment) and the packed block to come.
        self._waiting: deque[tuple[Data | None, int, Future[tuple[bytes | bytearray, int]]]] = deque()

    def add(self, size: int, read: Callable[[int], bytes]) -> Data:
        """Take one file's content.

        Args:
            size: Its bytes.
            read: Gives exactly the next n bytes of it.

        Returns:
            Where it is; complete once `finish` has returned.

        Raises:
            ConvertError: All files together are larger than an image may be (2 TiB at 128 KiB a block).
        """
        if not size:
            return _EMPTY
        return self._add_tail(read(size)) if size < self._block_size else self._add_blocks(size, read)

    def _add_tail(self, content: bytes) -> Data:
        key = _key(len(content), hashlib.sha256(content))
        known = self._known.get(key)
        if known is not None:
            return known
        if len(self._tail) + len(content) > self._block_size:
            self._flush_tail()
        data = self._known[key] = Data(fragment=self._fragment, offset=len(self._tail))
        self._tail += content
        return data

    def _flush_tail(self) -> None:
        if self._tail:
            self._submit(None, self._fragment, bytes(self._tail))
            self._tail.clear()
            self._fragment += 1

    def _add_blocks(self, size: int, read: Callable[[int], bytes]) -> Data:
        count = -(-size // self._block_size)
        self._words += count
        if self._words > MAX_WORDS:
            raise ConvertError(f"the layer's files have more than {MAX_WORDS} blocks of {self._block_size} bytes")
        data = Data(words=bytearray(4 * count))
        digest = hashlib.sha256()
        for index in range(count):
            block = read(min(self._block_size, size - index * self._block_size))
            # Marked, so that a hole can be told from a block without hashing its zeros.
            if block == self._zeros[: len(block)]:
                data.sparse += len(block)
                digest.update(b"hole")
            else:
                digest.update(b"data")
                digest.update(block)
                self._submit(data, index, block)
        known = self._known.setdefault(_key(size, digest), data)
        if known is not data:
            self._take_back(data)
        return known

    def _take_back(self, data: Data) -> None:
        # Its blocks are the last ones: those in the queue are left out, those written are written over.
        while self._waiting and self._waiting[-1][0] is data:
            self._waiting.pop()[2].cancel()
        if data.start:
            self._position = data.start

    def _submit(self, data: Data | None, index: int, block: bytes) -> None:
        while len(self._waiting) >= self._limit:
            self._write_next()
        self._waiting.append((data, index, self._pool.submit(self._pack, block)))

    def _pack(self, block: bytes) -> tuple[bytes | bytearray, int]:
        packed = self._compressor.compress(block)
        if len(packed) < len(block):
            return packed, len(packed)
        return block, len(block) | tree.STORED_RAW

    def _write_next(self) -> None:
        data, index, future = self._waiting.popleft()
        packed, word = future.result()
        if data is None:
            self._fragments.append((self._position, word))
        else:
            if not data.start:
                data.start = self._position
            data.words[4 * index : 4 * index + 4] = word.to_bytes(4, "little")  # type: ignore[index]
        write_at(self._file, packed, self._position)
        self._position += len(packed)

    def finish(self) -> tuple[list[tuple[int, int]], int]:
        """Write all that is still on its way.

        Returns:
            (start, size word) of each fragment block, and where the data end.
        """
        self._flush_tail()
        while self._waiting:
            self._write_next()
        return self._fragments, self._position

    def __enter__(self) -> DataWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _key(size: int, digest: hashlib._Hash) -> bytes:
    return size.to_bytes(8, "little") + digest.digest()

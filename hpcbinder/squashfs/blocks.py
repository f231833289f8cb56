"""File contents into data blocks and fragments, packed on all cores, in an order that does not depend on how many.

A file shorter than a block goes into a fragment block that it shares; a longer one has blocks of its own, its last one
shorter. A block of zeros is a hole. Files with the same bytes are stored once.
"""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import tree
from hpcbinder.squashfs.compressors import Buffer, Compressor
from hpcbinder.squashfs.inodes import MAX_WORDS
from hpcbinder.squashfs.output import PieceWriter
from hpcbinder.squashfs.tree import Data

if TYPE_CHECKING:
    from concurrent.futures import Future

_EMPTY = Data()
_AHEAD = 4 << 20
"""Bytes of blocks on their way: see `stream`."""
_BATCH = 512 << 10
"""Bytes that a thread packs in one go: to hand a block from thread to thread costs as much as to pack some of it."""
_CHUNK = 1 << 20
_SAMPLE = 4096


_Place: TypeAlias = "tuple[int, int]"
"""Where in the image a packed block is, and its size word."""


class _Fragment:
    """A fragment block that is being filled."""

    __slots__ = ("index", "parts", "size")

    def __init__(self, index: int) -> None:
        self.index = index
        self.parts: list[bytes] = []
        self.size = 0


class DataWriter:
    """Writes the data part of an image; a context manager that ends its threads.

    Memory is bounded by a queue of blocks on their way: 4 MiB, or two batches of 512 KiB for each job if that is more.

    Args:
        file: Descriptor of the file, open for reading and writing.
        position: Where the data begin.
        block_size: Bytes per block.
        compressor: What packs them.
        jobs: Threads that pack.
        lighter: Packs files of no group; `compressor` if None.
    """

    def __init__(
        self,
        file: int,
        position: int,
        block_size: int,
        compressor: Compressor,
        jobs: int,
        lighter: Compressor | None = None,
    ) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._file = file
        self._out = PieceWriter(file, position)
        self._block_size = block_size
        self._compressor = compressor
        self._lighter = lighter or compressor
        self._zeros = bytes(block_size)
        self._open: dict[bytes, _Fragment] = {}
        self._tails: dict[bytes, Data] = {}
        self._fragments: list[tuple[int, int]] = []
        self._words = 0
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="squashfs")
        self._batch_size = max(1, _BATCH // block_size)
        self._limit = max(2 * jobs, _AHEAD // (self._batch_size * block_size))
        # In the order of the output: where blocks belong (a file and the number of its word; None: a fragment), and the
        # packed blocks to come.
        self._places: list[tuple[Data | None, int]] = []
        self._batch: list[tuple[bytes | memoryview, Compressor, _Place | None]] = []
        self._waiting: deque[tuple[list[tuple[Data | None, int]], Future[list[tuple[Buffer, int, int]]]]]
        self._waiting = deque()
        # The file whose blocks were written last, and what its packed blocks add up to.
        self._file_data: Data | None = None
        self._file_sum = 0
        self._files: dict[tuple[int, int], Data] = {}
        # Files by their size and how they begin: the first one of each, and what packs it.
        self._begun: dict[tuple[int, int], tuple[Data, Compressor]] = {}

    def add(
        self,
        size: int,
        read: Callable[[int], bytes | memoryview],
        pass_hole: Callable[[int], int] = lambda unit: 0,
        group: bytes = b"",
    ) -> Data:
        """Take one file's content.

        Args:
            size: Its bytes.
            read: Gives exactly the next n bytes of it.
            pass_hole: Goes over as many whole units of n bytes as are a hole from here on; says how many.
            group: Short files of one group share fragment blocks. Each group that there is keeps one block in memory.
                Files of none are packed with less effort.

        Returns:
            Where it is; complete once `finish` has returned.

        Raises:
            ConvertError: All files together are larger than an image may be (2 TiB at 128 KiB a block).
        """
        if not size:
            return _EMPTY
        if size < self._block_size:
            return self._add_tail(read(size), group)
        return self._add_blocks(size, read, pass_hole, self._packer(group))

    def _packer(self, group: bytes) -> Compressor:
        return self._compressor if group else self._lighter

    def _add_tail(self, content: bytes | memoryview, group: bytes) -> Data:
        key = hashlib.sha256(content).digest()
        known = self._tails.get(key)
        if known is not None:
            return known
        fragment = self._open.get(group)
        if fragment is None or fragment.size + len(content) > self._block_size:
            if fragment is not None:
                self._put(None, fragment.index, b"".join(fragment.parts), self._packer(group))
            fragment = self._open[group] = _Fragment(len(self._fragments))
            self._fragments.append((0, 0))
        data = self._tails[key] = Data(fragment=fragment.index, offset=fragment.size)
        # A view would keep all of the stream around it in memory until the block is full.
        fragment.parts.append(bytes(content))
        fragment.size += len(content)
        return data

    def add_note(self, content: bytes) -> Data:
        """Take what only `merge` reads: kept out of the blocks that it copies.

        Returns:
            Where it is; complete once `finish` has returned.
        """
        self._flush_tails()
        return self._add_blocks(len(content), io.BytesIO(content).read, lambda unit: 0, self._lighter)

    @property
    def tails(self) -> Mapping[bytes, Data]:
        """Where the contents shorter than a block are, by their SHA-256."""
        return self._tails

    def _flush_tails(self) -> None:
        for group, fragment in self._open.items():
            self._put(None, fragment.index, b"".join(fragment.parts), self._packer(group))
        self._open.clear()

    def _add_blocks(
        self,
        size: int,
        read: Callable[[int], bytes | memoryview],
        pass_hole: Callable[[int], int],
        compressor: Compressor,
    ) -> Data:
        count = -(-size // self._block_size)
        self._words += count
        if self._words > MAX_WORDS:
            raise ConvertError(f"the layer's files have more than {MAX_WORDS} blocks of {self._block_size} bytes")
        data = Data(words=bytearray(4 * count))
        twin: Data | None = None
        place = 0
        first = True
        index = 0
        while index < count:
            # A tar of a kilobyte may say that it holds terabytes: engines do, of a sparse /var/log/lastlog.
            holes = pass_hole(self._block_size)
            if holes:
                data.sparse += holes * self._block_size
                index += holes
                continue
            block = read(min(self._block_size, size - index * self._block_size))
            if not block[0] and bytes(block) == self._zeros[: len(block)]:
                data.sparse += len(block)
                index += 1
                continue
            if first:
                # What may be another's twin is packed as that one is, whatever its name: else they would only be shared
                # where the other is written already, which depends on how many threads there are.
                twin, compressor = self._begun.setdefault((size, hash(bytes(block[:_SAMPLE]))), (data, compressor))
                first, place = False, twin.start
            # What is not written yet has no size.
            word = (
                0 if twin is None or twin is data else int.from_bytes(twin.words[4 * index : 4 * index + 4], "little")
            )
            if word:
                self._out.flush()
                self._put(data, index, block, compressor, (place, word))
                place += word & ~tree.STORED_RAW
            else:
                twin = None
                self._put(data, index, block, compressor)
            index += 1
        return data

    def _put(
        self,
        data: Data | None,
        index: int,
        block: bytes | memoryview,
        compressor: Compressor,
        known: _Place | None = None,
    ) -> None:
        self._places.append((data, index))
        self._batch.append((block, compressor, known))
        if len(self._batch) == self._batch_size:
            self._send()

    def _send(self) -> None:
        while len(self._waiting) >= self._limit:
            self._write_next()
        self._waiting.append((self._places, self._pool.submit(self._pack, self._batch)))
        self._places, self._batch = [], []

    def _pack(self, batch: list[tuple[bytes | memoryview, Compressor, _Place | None]]) -> list[tuple[Buffer, int, int]]:
        """Packed blocks, their size words, and a checksum that unequal ones rarely share."""
        done: list[tuple[Buffer, int, int]] = []
        for block, compressor, known in batch:
            packed = self._packed_already(block, known) or compressor.compress(block)
            if len(packed) < len(block):
                # How a block ends follows from all of it: in zlib streams with a checksum of the content.
                done.append((packed, len(packed), zlib.crc32(packed[-_SAMPLE:])))
            else:
                done.append((block, len(block) | tree.STORED_RAW, zlib.crc32(block)))
        return done

    def _packed_already(self, block: bytes | memoryview, known: _Place | None) -> bytes | None:
        """What is written where the same block may be, if it is: unpacking it takes a tenth of packing it again."""
        if known is None or known[1] & tree.STORED_RAW:
            return None
        place, length = known
        packed = os.pread(self._file, length, place)
        try:
            # A file that was taken back may be written over just now.
            return packed if self._compressor.decompress(packed, len(block)) == block else None
        except ConvertError:
            return None

    def _write_next(self) -> None:
        places, future = self._waiting.popleft()
        for (data, index), (packed, word, checksum) in zip(places, future.result(), strict=True):
            if data is not self._file_data:
                self._end_file()
            if data is None:
                self._fragments[index] = (self._out.position, word)
            else:
                if self._file_data is None:
                    self._file_data, self._file_sum, data.start = data, 0, self._out.position
                self._file_sum = zlib.crc32(checksum.to_bytes(4, "little"), self._file_sum)
                data.words[4 * index : 4 * index + 4] = word.to_bytes(4, "little")  # type: ignore[index]
            self._out.write(packed)

    def _end_file(self) -> None:
        """If the file that was written last is another's twin, take it back: what follows is written over it."""
        data, self._file_data = self._file_data, None
        if data is None:
            return
        known = self._files.setdefault((hash(bytes(data.words)), self._file_sum), data)
        # Packed in the same way, so that the same content is the same stored bytes. Unequal files whose checksums agree
        # are made on purpose, and then not shared.
        if known is not data and known.words == data.words and self._stored_alike(known.start, data.start):
            self._out.back_to(data.start)
            data.start = known.start

    def _stored_alike(self, one: int, other: int) -> bool:
        self._out.flush()
        end = self._out.position
        while other < end:
            count = min(_CHUNK, end - other)
            if os.pread(self._file, count, one) != os.pread(self._file, count, other):
                return False
            one += count
            other += count
        return True

    def finish(self) -> tuple[list[tuple[int, int]], int]:
        """Write all that is still on its way.

        Returns:
            (start, size word) of each fragment block, and where the data end.
        """
        self._flush_tails()
        self._send()
        while self._waiting:
            self._write_next()
        self._end_file()
        self._out.flush()
        return self._fragments, self._out.position

    def __enter__(self) -> DataWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

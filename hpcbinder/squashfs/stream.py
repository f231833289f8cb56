"""A layer's tar as it comes in: read ahead, hashed, and handed out, each in a thread of its own."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from concurrent.futures import Future

_CHUNK = 2 << 20
"""Bytes that are handed from thread to thread at once: each time costs both some work."""
_AHEAD = 2
"""Chunks that have been read and not yet taken, and as many that are not hashed yet. More of them do not make it faster
and are more pages for the kernel to clear."""
_PATIENCE = 5.0
"""Seconds that a reader which is stuck in its source is waited for when all has failed anyway."""


class HashedStream:
    """A stream that knows the SHA-256 of all that was read from it.

    What it reads may have to be decompressed, and the hash is the one thing here that cannot be spread over cores: both
    go on while the bytes before them are looked at.

    Args:
        stream: Read in order, to its end.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._ahead: _Ahead | None = None
        self._count = 0
        self._ended = False
        self._chunk = b""
        self._at = 0

    def read(self, length: int) -> bytes:
        """The next `length` bytes, fewer only at the end."""
        at = self._at
        self._at = end = at + length
        if end <= len(self._chunk):
            return self._chunk[at:end]
        parts = [self._chunk[at:]]
        length -= len(parts[0])
        while length and self._next():
            parts.append(self._chunk[:length])
            self._at = len(parts[-1])
            length -= self._at
        return b"".join(parts)

    def view(self, length: int) -> bytes | memoryview:
        """As `read`, but without copying where that can be; what is not looked at any more must be let go of."""
        at = self._at
        if at + length > len(self._chunk):
            return self.read(length)
        self._at = at + length
        return memoryview(self._chunk)[at : self._at]

    def skip(self, length: int) -> int:
        """Go over the next `length` bytes; returns how many there were."""
        end = self._at + length
        while end > len(self._chunk):
            end -= len(self._chunk)
            if not self._next():
                return length - end
        self._at = end
        return length

    def _next(self) -> bool:
        self._at, self._chunk = 0, b""
        if self._ended:
            return False
        self._ended = True  # should reading fail
        if self._ahead is not None:
            self._chunk = self._ahead.take()
        else:
            self._chunk = self._stream.read(_CHUNK)
            self._hash.update(self._chunk)
            self._count += len(self._chunk)
            # Layers smaller than this are not worth threads.
            if self._count >= _CHUNK:
                self._ahead = _Ahead(self._stream, self._hash)
        self._ended = not self._chunk
        return not self._ended

    def digest(self) -> str:
        """Read what is left and give the `sha256:<hex>` of everything."""
        while self._next():
            pass
        if self._ahead is not None:
            self._ahead.finish()
        return f"sha256:{self._hash.hexdigest()}"

    def close(self) -> None:
        """End the threads. The stream itself is the caller's."""
        if self._ahead is not None:
            self._ahead.close()


class _Ahead:
    """The threads: one reads, one hashes what was read. Errors of the stream come out of `take`."""

    def __init__(self, stream: BinaryIO, digest: hashlib._Hash) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._stream = stream
        self._digest = digest
        self._chunks: deque[bytes | BaseException] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        self._hashing: deque[Future[None]] = deque()
        self._reader = threading.Thread(target=self._read, name="layer", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        chunk: bytes | BaseException
        while True:
            try:
                chunk = self._stream.read(_CHUNK)
                if chunk:
                    self._hashing.append(self._hasher.submit(self._digest.update, chunk))
                if len(self._hashing) > _AHEAD:
                    self._hashing.popleft().result()
            except BaseException as error:  # raised again where the chunk is taken
                chunk = error
            with self._changed:
                self._chunks.append(chunk)
                self._changed.notify()
                self._changed.wait_for(lambda: len(self._chunks) < _AHEAD or self._stopped)
                if self._stopped:
                    return
            if not chunk or isinstance(chunk, BaseException):
                return

    def take(self) -> bytes:
        """The next chunk; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._chunks)
            chunk = self._chunks.popleft()
            self._changed.notify()
        if isinstance(chunk, BaseException):
            raise chunk
        return chunk

    def finish(self) -> None:
        """Wait until all has been hashed; the end has been taken."""
        self._reader.join()
        while self._hashing:
            self._hashing.popleft().result()

    def close(self) -> None:
        """End the threads, whatever they are at."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._reader.join(_PATIENCE)
        self._hasher.shutdown(wait=True, cancel_futures=True)

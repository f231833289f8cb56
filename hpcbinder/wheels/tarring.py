"""An installed package as the tar of a layer, made while it is read: what wheels and conda packages have in common."""

from __future__ import annotations

import io
import tarfile
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait

from hpcbinder.contract import EPOCH
from hpcbinder.wheels.archive import Refused
from hpcbinder.wheels.bytecode import AGAIN, BATCH_BYTES, BATCH_FILES, Compiled, Compiler

_AHEAD = 4
"""Batches of sources on their way through the compilers. Not a matter of how many there are: the order of the files in
the layer depends on it."""
_CHUNK = 1 << 20
_BUDGET = 900
"""Seconds of processor time for all bytecode of a package; PyTorch's takes one minute."""
_FREE_BYTECODE = 64 << 20
"""Up to here all bytecode of a package may be as large as it likes; beyond, `_RATIO` times as large as its sources."""
_RATIO = 4
_LOOK = 0.2
"""Seconds after which it is looked whether anybody still waits."""


class PackageTar(io.RawIOBase):
    """The tar of one package's layer, readable once, in bounded memory.

    Args:
        prefix: The environment it is installed into, absolute.
        compiler: Makes bytecode.
        stopped: Asked now and then whether nobody wants the rest.

    Raises:
        Refused: By `read` too: the package is not well made, or means no good.
    """

    def __init__(self, prefix: str, compiler: Compiler, stopped: Callable[[], bool]) -> None:
        super().__init__()
        self._prefix = prefix
        self._compiler = compiler
        self._stopped = stopped
        self._folders: set[str] = set()
        self._batch: list[tuple[str, bytes]] = []
        self._waiting: deque[tuple[list[str], Future[Compiled]]] = deque()
        self._batched = self._sources = self._made = 0
        self._seconds = 0.0
        self._parts: Iterator[bytes] | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Some of it: about a megabyte, whatever is asked for; nothing at the end."""
        if self._stopped():
            raise CancelledError
        if self._parts is None:
            self._parts = self._whole()
        found, length = [], 0
        for part in self._parts:
            found.append(part)
            length += len(part)
            if length >= _CHUNK:
                break
        return b"".join(found)

    @abstractmethod
    def files(self) -> Iterator[bytes]:
        """The members of what was in the package; each module is also handed to `compiled`."""

    @abstractmethod
    def record(self) -> Iterator[bytes]:
        """The members that tell what was installed."""

    @abstractmethod
    def bytecode(self, path: str, content: bytes) -> str:
        """Take note of a module's bytecode; returns its path below the prefix."""

    def compiled(self, path: str, source: bytes) -> Iterator[bytes]:
        """Have a module compiled; the members of those that are ready by now."""
        self._batch.append((path, source))
        self._batched += len(source)
        if len(self._batch) >= BATCH_FILES or self._batched >= BATCH_BYTES:
            self._hand_over()
            if len(self._waiting) > _AHEAD:
                yield from self._received()

    def member(
        self, path: str, size: int, *, executable: bool = False, kind: bytes = tarfile.REGTYPE, target: str = ""
    ) -> Iterator[bytes]:
        """The header of a file or link, after those of the folders it is in that have none yet.

        Args:
            path: Below the prefix.
            size: Bytes that follow, and then their padding.
        """
        folder = path.rpartition("/")[0]
        if folder and folder not in self._folders:
            parts = folder.split("/")
            for depth in range(1, len(parts) + 1):
                above = "/".join(parts[:depth])
                if above not in self._folders:
                    self._folders.add(above)
                    yield self._header(above, tarfile.DIRTYPE, 0o755, 0, "")
        mode = 0o777 if kind == tarfile.SYMTYPE else 0o755 if executable else 0o644
        yield self._header(path, kind, mode, size, target)

    def content(self, path: str, content: bytes, *, executable: bool = False) -> Iterator[bytes]:
        """A whole file."""
        yield from self.member(path, len(content), executable=executable)
        yield content
        yield padding(len(content))

    def _whole(self) -> Iterator[bytes]:
        yield from self.files()
        if self._batch:
            self._hand_over()
        while self._waiting:
            yield from self._received()
        yield from self.record()
        yield bytes(1024)

    def _hand_over(self) -> None:
        self._sources += self._batched
        sources = [(f"{self._prefix}/{path}", source) for path, source in self._batch]
        self._waiting.append(([path for path, _ in self._batch], self._compiler.submit(sources)))
        self._batch, self._batched = [], 0

    def _received(self) -> Iterator[bytes]:
        paths, made = self._waiting.popleft()
        while not wait([made], _LOOK).done:
            if self._stopped():
                raise CancelledError
        compiled = made.result()
        self._seconds += compiled.seconds
        self._made += sum(len(content) for content in compiled.files if content is not None)
        if self._seconds > _BUDGET:
            raise Refused(f"compiling it takes more than {_BUDGET} seconds", hint=AGAIN)
        if self._made > max(_FREE_BYTECODE, _RATIO * self._sources):
            raise Refused(f"its {self._sources} bytes of Python compile to more than {self._made}")
        for path, content in zip(paths, compiled.files, strict=True):
            if content is not None:
                yield from self.content(self.bytecode(path, content), content)

    def _header(self, path: str, kind: bytes, mode: int, size: int, target: str) -> bytes:
        member = tarfile.TarInfo(f"{self._prefix.lstrip('/')}/{path}")
        member.type, member.mode, member.size, member.mtime, member.linkname = kind, mode, size, EPOCH, target
        return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def padding(size: int) -> bytes:
    """What follows a file of so many bytes in a tar."""
    return bytes(-size % 512)

"""An installed wheel as the tar of a layer, made while it is read: bytecode and RECORD with it."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path

from hpcbinder.contract import EPOCH
from hpcbinder.wheels.archive import Archive, Refused
from hpcbinder.wheels.bytecode import AGAIN, BATCH_BYTES, BATCH_FILES, LARGEST, Compiled, Compiler
from hpcbinder.wheels.distinfo import read_dist_info
from hpcbinder.wheels.layout import Placed, bytecode_path, lay_out, record_path
from hpcbinder.wheels.target import Target

FORM = "2"
"""Part of a layer's name: count it up when what a wheel becomes changes."""

_AHEAD = 4
"""Batches of sources on their way through the compilers. Not a matter of how many there are: the order of the files in
the layer depends on it."""
_CHUNK = 1 << 20
_BUDGET = 900
"""Seconds of processor time for all bytecode of a wheel; PyTorch's takes one minute."""
_FREE_BYTECODE = 64 << 20
"""Up to here all bytecode of a wheel may be as large as it likes; beyond, `_RATIO` times as large as its sources."""
_RATIO = 4
_LOOK = 0.2
"""Seconds after which it is looked whether anybody still waits."""


class WheelTar(io.RawIOBase):
    """The tar of one wheel's layer, readable once, in bounded memory.

    Args:
        path: The wheel.
        filename: Its name in the index.
        target: What it is installed for.
        compiler: Makes its bytecode.
        url: Where a lock says it comes from, if not the index.
        digest: SHA-256 (hex) of the wheel.
        stopped: Asked now and then whether nobody wants the rest.

    Raises:
        Refused: By `read` too: the wheel is not well made, or means no good.
    """

    def __init__(
        self,
        path: Path,
        filename: str,
        target: Target,
        compiler: Compiler,
        *,
        url: str = "",
        digest: str = "",
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self._archive = Archive(path)
        try:
            self._info = read_dist_info(self._archive, filename)
            files = lay_out(self._archive, self._info, target, url=url, digest=digest)
        except BaseException:
            self._archive.close()
            raise
        self._stopped = stopped
        self._target = target
        self._compiler = compiler
        self._prefix = target.prefix.lstrip("/")
        self._rows: list[tuple[str, str, str]] = []
        self._folders: set[str] = set()
        self._sources = self._made = 0
        self._seconds = 0.0
        self._parts = self._stream(files)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Some of it: about a megabyte, whatever is asked for; nothing at the end."""
        if self._stopped():
            raise CancelledError
        found, length = [], 0
        for part in self._parts:
            found.append(part)
            length += len(part)
            if length >= _CHUNK:
                break
        return b"".join(found)

    def close(self) -> None:
        self._archive.close()
        super().close()

    def _stream(self, files: Sequence[Placed]) -> Iterator[bytes]:
        waiting: deque[tuple[list[str], Future[Compiled]]] = deque()
        batch: list[tuple[str, bytes]] = []
        length = 0
        for file in files:
            pyc = bytecode_path(file.path, self._target)
            size = len(file.content) if file.content is not None else self._archive.members[file.member].size
            if pyc is None or size > LARGEST:
                yield from self._file(file, size)
                continue
            source = b"".join(self._content(file))
            yield from self._whole(file.path, source, file.executable)
            batch.append((file.path, source))
            length += len(source)
            if len(batch) >= BATCH_FILES or length >= BATCH_BYTES:
                waiting.append(self._compile(batch))
                batch, length = [], 0
                if len(waiting) > _AHEAD:
                    yield from self._bytecode(*waiting.popleft())
        if batch:
            waiting.append(self._compile(batch))
        while waiting:
            yield from self._bytecode(*waiting.popleft())
        yield from self._record(record_path(self._target, self._info))
        yield bytes(1024)

    def _compile(self, batch: list[tuple[str, bytes]]) -> tuple[list[str], Future[Compiled]]:
        paths = [path for path, _ in batch]
        self._sources += sum(len(source) for _, source in batch)
        return paths, self._compiler.submit([(f"{self._target.prefix}/{path}", source) for path, source in batch])

    def _bytecode(self, paths: list[str], made: Future[Compiled]) -> Iterator[bytes]:
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
            pyc = bytecode_path(path, self._target)
            assert pyc is not None
            if content is not None:
                yield from self._member(pyc, len(content), False)
                yield content
                yield _padding(len(content))
                self._rows.append((pyc, "", ""))

    def _file(self, file: Placed, size: int) -> Iterator[bytes]:
        yield from self._member(file.path, size, file.executable)
        digest = hashlib.sha256()
        for piece in self._content(file):
            digest.update(piece)
            yield piece
        yield _padding(size)
        self._row(file.path, digest.digest(), size)

    def _whole(self, path: str, content: bytes, executable: bool) -> Iterator[bytes]:
        yield from self._member(path, len(content), executable)
        yield content
        yield _padding(len(content))
        self._row(path, hashlib.sha256(content).digest(), len(content))

    def _content(self, file: Placed) -> Iterator[bytes]:
        """A file's content; of the wheel's own, when all of it was read, it was what the wheel's RECORD says."""
        if not file.member:
            assert file.content is not None
            yield file.content
            return
        algorithm, wanted = self._info.record.get(file.member, ("", b""))
        digest = hashlib.new(algorithm) if algorithm else None
        for piece in self._archive.pieces(file.member):
            if digest is not None:
                digest.update(piece)
            if file.content is None:
                yield piece
        if digest is not None and digest.digest() != wanted:
            raise Refused(f"{file.member!r} is not what its RECORD says")
        if file.content is not None:
            yield file.content

    def _row(self, path: str, digest: bytes, size: int) -> None:
        text = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        self._rows.append((path, f"sha256={text}", str(size)))

    def _record(self, path: str) -> Iterator[bytes]:
        rows = [(_relative(name, self._target.packages), *rest) for name, *rest in [*self._rows, (path, "", "")]]
        text = "".join(",".join(map(_quoted, row)) + "\n" for row in sorted(rows))
        yield from self._whole(path, text.encode(), False)

    def _member(self, path: str, size: int, executable: bool) -> Iterator[bytes]:
        folder = path.rpartition("/")[0]
        if folder and folder not in self._folders:
            parts = folder.split("/")
            for depth in range(1, len(parts) + 1):
                above = "/".join(parts[:depth])
                if above not in self._folders:
                    self._folders.add(above)
                    yield self._header(above, tarfile.DIRTYPE, 0o755, 0)
        yield self._header(path, tarfile.REGTYPE, 0o755 if executable else 0o644, size)

    def _header(self, path: str, kind: bytes, mode: int, size: int) -> bytes:
        member = tarfile.TarInfo(f"{self._prefix}/{path}")
        member.type, member.mode, member.size, member.mtime = kind, mode, size, EPOCH
        return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _padding(size: int) -> bytes:
    return bytes(-size % 512)


def _relative(path: str, folder: str) -> str:
    if path.startswith(f"{folder}/"):
        return path.removeprefix(f"{folder}/")
    mine, theirs = path.split("/"), folder.split("/")
    while mine[0] == theirs[0]:
        mine, theirs = mine[1:], theirs[1:]
    return "/".join([".."] * len(theirs) + mine)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"') else text

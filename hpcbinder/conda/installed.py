"""An installed conda package as the tar of a layer, made while it is read: bytecode and its record with it."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path

from hpcbinder.conda.archive import unpack
from hpcbinder.conda.layout import Placed, content_of, installed_size, lay_out
from hpcbinder.conda.metadata import read_metadata
from hpcbinder.conda.record import Installed, record, record_path
from hpcbinder.contract import EPOCH
from hpcbinder.model import LockedPackage
from hpcbinder.wheels import AGAIN, BATCH_BYTES, BATCH_FILES, LARGEST, Compiled, Compiler, Refused, Target

FORM = "1"
"""Part of a layer's name: count it up when what a package becomes changes."""

_AHEAD = 4
"""Batches of sources on their way through the compilers. Not a matter of how many there are: the order of the files in
the layer depends on it."""
_CHUNK = 1 << 20
_BUDGET = 900
"""Seconds of processor time for all bytecode of a package."""
_FREE_BYTECODE = 64 << 20
_RATIO = 4
"""As with wheels: bytecode beyond `_FREE_BYTECODE` is at most so many times as large as its sources."""
_LOOK = 0.2
_BYTECODE = re.compile(r"(?P<folder>.+)/__pycache__/(?P<module>[^/.]+)\.cpython-\d+\.pyc")


class PackageTar(io.RawIOBase):
    """The tar of one package's layer, readable once, in bounded memory but for files with a prefix in them.

    Args:
        path: The package.
        package: What the lock says of it.
        target: The environment.
        compiler: Makes bytecode for the environment's Python.
        folder: New folder for its files, to be removed afterwards.
        stopped: Asked now and then whether nobody wants the rest.

    Raises:
        Refused: By `read` too: the package is not well made, or means no good.
    """

    def __init__(
        self,
        path: Path,
        package: LockedPackage,
        target: Target,
        compiler: Compiler,
        folder: Path,
        *,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        unpacked = unpack(path, package.url.rpartition("/")[2], folder)
        self._metadata = read_metadata(unpacked, package)
        files = lay_out(unpacked, self._metadata, target)
        self._package = package
        self._target = target
        self._library = target.packages.rpartition("/")[0]
        self._compiler = compiler
        self._stopped = stopped
        self._prefix = target.prefix.lstrip("/")
        self._installed: list[Installed] = []
        self._folders: set[str] = set()
        self._sources = self._made = 0
        self._seconds = 0.0
        paths = {file.path for file in files}
        # Theirs goes by the time of the source, which no file of an image keeps.
        self._theirs = {path for path in paths if _source(path) in paths}
        self._compiled = {_source(path) for path in self._theirs}
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

    def _stream(self, files: Sequence[Placed]) -> Iterator[bytes]:
        waiting: deque[tuple[list[str], Future[Compiled]]] = deque()
        batch: list[tuple[str, bytes]] = []
        length = 0
        for file in files:
            if self._ours(file.path) and file.path in self._theirs:
                continue
            if file.target:
                yield from self._link(file)
                continue
            size = installed_size(file, self._target.prefix)
            if not self._compiles(file) or size > LARGEST:
                yield from self._file(file, size)
                continue
            digest = hashlib.sha256()
            source = b"".join(content_of(file, self._target.prefix, digest.update))
            yield from self._whole(file.path, source, file.executable)
            self._installed.append(Installed(file, file.path, digest.hexdigest(), len(source)))
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
        text = record(self._metadata.index, self._package, self._metadata.noarch, self._installed)
        yield from self._whole(record_path(self._package), text, False)
        yield bytes(1024)

    def _ours(self, path: str) -> bool:
        """Whether it is of the environment's Python."""
        return path.startswith(f"{self._library}/")

    def _compiles(self, file: Placed) -> bool:
        """Modules of packages, and whatever came with bytecode."""
        if not file.path.endswith(".py") or not self._ours(file.path) or "/__pycache__/" in file.path:
            return False
        return file.path.startswith(f"{self._target.packages}/") or file.path in self._compiled

    def _compile(self, batch: list[tuple[str, bytes]]) -> tuple[list[str], Future[Compiled]]:
        self._sources += sum(len(source) for _, source in batch)
        sources = [(f"{self._target.prefix}/{path}", source) for path, source in batch]
        return [path for path, _ in batch], self._compiler.submit(sources)

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
            if content is not None:
                folder, _, name = path.rpartition("/")
                pyc = f"{folder}/__pycache__/{name.removesuffix('.py')}.{self._target.cache_tag}.pyc"
                yield from self._whole(pyc, content, False)
                self._installed.append(Installed(None, pyc, hashlib.sha256(content).hexdigest(), len(content)))

    def _file(self, file: Placed, size: int) -> Iterator[bytes]:
        yield from self._member(file.path, tarfile.REGTYPE, 0o755 if file.executable else 0o644, size)
        digest = hashlib.sha256()
        yield from content_of(file, self._target.prefix, digest.update)
        yield _padding(size)
        self._installed.append(Installed(file, file.path, digest.hexdigest(), size))

    def _link(self, file: Placed) -> Iterator[bytes]:
        yield from self._member(file.path, tarfile.SYMTYPE, 0o777, 0, file.target)
        self._installed.append(Installed(file, file.path, "", 0))

    def _whole(self, path: str, content: bytes, executable: bool) -> Iterator[bytes]:
        yield from self._member(path, tarfile.REGTYPE, 0o755 if executable else 0o644, len(content))
        yield content
        yield _padding(len(content))

    def _member(self, path: str, kind: bytes, mode: int, size: int, target: str = "") -> Iterator[bytes]:
        folder = path.rpartition("/")[0]
        if folder and folder not in self._folders:
            parts = folder.split("/")
            for depth in range(1, len(parts) + 1):
                above = "/".join(parts[:depth])
                if above not in self._folders:
                    self._folders.add(above)
                    yield self._header(above, tarfile.DIRTYPE, 0o755, 0, "")
        yield self._header(path, kind, mode, size, target)

    def _header(self, path: str, kind: bytes, mode: int, size: int, target: str) -> bytes:
        member = tarfile.TarInfo(f"{self._prefix}/{path}")
        member.type, member.mode, member.size, member.mtime, member.linkname = kind, mode, size, EPOCH, target
        return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _source(path: str) -> str:
    """What bytecode was made of (PEP 3147); "" of what is none."""
    match = _BYTECODE.fullmatch(path)
    return f"{match['folder']}/{match['module']}.py" if match else ""


def _padding(size: int) -> bytes:
    return bytes(-size % 512)

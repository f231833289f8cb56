"""An installed conda package as the tar of a layer, made while it is read: bytecode and its record with it."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hpcbinder.conda.archive import unpack
from hpcbinder.conda.layout import Placed, content_of, installed_size, lay_out
from hpcbinder.conda.metadata import read_metadata
from hpcbinder.conda.record import Installed, record, record_path
from hpcbinder.model import LockedPackage
from hpcbinder.wheels import LARGEST, Compiler, PackageTar, Target, padding

FORM = "2"
"""Part of a layer's name: count it up when what a package becomes changes."""

_BYTECODE = re.compile(r"(?P<folder>.+)/__pycache__/(?P<module>[^/.]+)\.cpython-\d+\.pyc")


class CondaTar(PackageTar):
    """The tar of one package's layer; files with a prefix in them are whole in memory.

    Args:
        path: The package.
        package: What the lock says of it.
        target: The environment.
        compiler: Makes bytecode for the environment's Python.
        folder: New folder for its files, to be removed afterwards.
        stopped: See `PackageTar`.

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
        super().__init__(target.prefix, compiler, stopped)
        unpacked = unpack(path, package.url.rpartition("/")[2], folder)
        self._metadata = read_metadata(unpacked, package)
        self._placed = lay_out(unpacked, self._metadata, target)
        self._package = package
        self._target = target
        self._library = target.packages.rpartition("/")[0]
        self._installed: list[Installed] = []
        paths = {file.path for file in self._placed}
        # Theirs goes by the time of the source, which no file of an image keeps.
        self._theirs = {path for path in paths if _source(path) in paths}
        self._compiled = {_source(path) for path in self._theirs}

    def files(self) -> Iterator[bytes]:
        """See `PackageTar.files`."""
        for file in self._placed:
            if self._ours(file.path) and file.path in self._theirs:
                continue
            if file.target:
                yield from self.member(file.path, 0, kind=tarfile.SYMTYPE, target=file.target)
                self._installed.append(Installed(file, file.path, "", 0))
                continue
            size = installed_size(file, self._target.prefix)
            if not self._compiles(file) or size > LARGEST:
                yield from self._file(file, size)
                continue
            digest = hashlib.sha256()
            source = b"".join(content_of(file, self._target.prefix, digest.update))
            yield from self.content(file.path, source, executable=file.executable)
            self._installed.append(Installed(file, file.path, digest.hexdigest(), len(source)))
            yield from self.compiled(file.path, source)

    def record(self) -> Iterator[bytes]:
        """`conda-meta/NAME.json`."""
        text = record(self._metadata.index, self._package, self._metadata.noarch, self._installed)
        yield from self.content(record_path(self._package), text)

    def bytecode(self, path: str, content: bytes) -> str:
        """See `PackageTar.bytecode`."""
        folder, _, name = path.rpartition("/")
        pyc = f"{folder}/__pycache__/{name.removesuffix('.py')}.{self._target.cache_tag}.pyc"
        self._installed.append(Installed(None, pyc, hashlib.sha256(content).hexdigest(), len(content)))
        return pyc

    def _ours(self, path: str) -> bool:
        """Whether it is of the environment's Python."""
        return path.startswith(f"{self._library}/")

    def _compiles(self, file: Placed) -> bool:
        """Modules of packages, and whatever came with bytecode."""
        if not file.path.endswith(".py") or not self._ours(file.path) or "/__pycache__/" in file.path:
            return False
        return file.path.startswith(f"{self._target.packages}/") or file.path in self._compiled

    def _file(self, file: Placed, size: int) -> Iterator[bytes]:
        yield from self.member(file.path, size, executable=file.executable)
        digest = hashlib.sha256()
        yield from content_of(file, self._target.prefix, digest.update)
        yield padding(size)
        self._installed.append(Installed(file, file.path, digest.hexdigest(), size))


def _source(path: str) -> str:
    """What bytecode was made of (PEP 3147); "" of what is none."""
    match = _BYTECODE.fullmatch(path)
    return f"{match['folder']}/{match['module']}.py" if match else ""

"""An installed wheel as the tar of a layer, made while it is read: bytecode and RECORD with it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from hpcbinder.wheels.archive import Archive, Refused
from hpcbinder.wheels.bytecode import LARGEST, Compiler
from hpcbinder.wheels.distinfo import read_dist_info
from hpcbinder.wheels.layout import Placed, bytecode_path, lay_out, record_path
from hpcbinder.wheels.target import Target
from hpcbinder.wheels.tarring import PackageTar, padding

FORM = "3"
"""Part of a layer's name: count it up when what a wheel becomes changes."""


class WheelTar(PackageTar):
    """The tar of one wheel's layer.

    Args:
        path: The wheel.
        filename: Its name in the index.
        target: What it is installed for.
        compiler: Makes its bytecode.
        url: Where a lock says it comes from, if not the index.
        digest: SHA-256 (hex) of the wheel.
        stopped: See `PackageTar`.

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
        super().__init__(target.prefix, compiler, stopped)
        self._archive = Archive(path)
        try:
            self._info = read_dist_info(self._archive, filename)
            self._placed = lay_out(self._archive, self._info, target, url=url, digest=digest)
        except BaseException:
            self._archive.close()
            raise
        self._target = target
        self._rows: list[tuple[str, str, str]] = []

    def close(self) -> None:
        self._archive.close()
        super().close()

    def files(self) -> Iterator[bytes]:
        """See `PackageTar.files`."""
        for file in self._placed:
            size = len(file.content) if file.content is not None else self._archive.members[file.member].size
            if bytecode_path(file.path, self._target) is None or size > LARGEST:
                yield from self._file(file, size)
                continue
            digest = hashlib.sha256()
            source = b"".join(self._content(file, digest))
            yield from self.content(file.path, source, executable=file.executable)
            self._row(file.path, digest.digest(), size)
            yield from self.compiled(file.path, source)

    def record(self) -> Iterator[bytes]:
        """RECORD."""
        path = record_path(self._target, self._info)
        rows = [(_relative(name, self._target.packages), *rest) for name, *rest in [*self._rows, (path, "", "")]]
        text = "".join(",".join(map(_quoted, row)) + "\n" for row in sorted(rows))
        yield from self.content(path, text.encode())

    def bytecode(self, path: str, content: bytes) -> str:
        """See `PackageTar.bytecode`: RECORD names it without a digest, as pip's does."""
        pyc = bytecode_path(path, self._target)
        assert pyc is not None
        self._rows.append((pyc, "", ""))
        return pyc

    def _file(self, file: Placed, size: int) -> Iterator[bytes]:
        yield from self.member(file.path, size, executable=file.executable)
        digest = hashlib.sha256()
        yield from self._content(file, digest)
        yield padding(size)
        self._row(file.path, digest.digest(), size)

    def _content(self, file: Placed, digest: hashlib._Hash) -> Iterator[bytes]:
        """A file's content; of the wheel's own, when all of it was read, it was what the wheel's RECORD says.

        Args:
            digest: A new SHA-256, in the end that of the content.
        """
        if file.content is not None:
            digest.update(file.content)
        if not file.member:
            assert file.content is not None
            yield file.content
            return
        algorithm, wanted = self._info.record.get(file.member, ("", b""))
        # Nearly always it is the same, and then it is counted once.
        theirs = digest if algorithm == "sha256" and file.content is None else hashlib.new(algorithm or "sha256")
        for piece in self._archive.pieces(file.member):
            theirs.update(piece)
            if file.content is None:
                if theirs is not digest:
                    digest.update(piece)
                yield piece
        if algorithm and theirs.digest() != wanted:
            raise Refused(f"{file.member!r} is not what its RECORD says")
        if file.content is not None:
            yield file.content

    def _row(self, path: str, digest: bytes, size: int) -> None:
        text = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        self._rows.append((path, f"sha256={text}", str(size)))


def _relative(path: str, folder: str) -> str:
    if path.startswith(f"{folder}/"):
        return path.removeprefix(f"{folder}/")
    mine, theirs = path.split("/"), folder.split("/")
    while mine[0] == theirs[0]:
        mine, theirs = mine[1:], theirs[1:]
    return "/".join([".."] * len(theirs) + mine)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"') else text

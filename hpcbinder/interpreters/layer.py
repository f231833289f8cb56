"""An interpreter as an image layer: the same files give the same bytes, and nothing in it leads out of its tree."""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import re
import stat
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from hpcbinder.errors import BuildError
from hpcbinder.interpreters.elf import NotReadable, is_elf, relocated
from hpcbinder.interpreters.look import Interpreter

TOP = "python"
"""Folder of the tree in the layer."""

_EPOCH = 1577836800
"""Unix time (s) of every file: 1 January 2020, the steps' SOURCE_DATE_EPOCH."""

_DROPPED_FOLDERS = frozenset(
    ("__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "idle_test", "turtledemo")
)
"""Tests, what the interpreter's owner installed, and bytecode, which is made anew in the image."""

_DROPPED_FILES = re.compile(r".*\.(pyc|pyo|a|o|exe|orig|rej)\Z|EXTERNALLY-MANAGED\Z")
_LIMIT = 1 << 30
"""Bytes of the largest file that is taken: a debug build's library has a tenth of it."""


@dataclass(frozen=True)
class Layer:
    """What was written.

    Attributes:
        diff_id: `sha256:…` of the layer's tar.
        size: Its bytes.
        files: How many files it holds.
    """

    diff_id: str
    size: int
    files: int


def write_layer(interpreter: Interpreter, out: BinaryIO | None, *, target: str, without: Collection[str]) -> Layer:
    """Write an interpreter's program, library, headers and own shared libraries, below the folder `python`.

    Args:
        out: Gets an uncompressed tar; None to learn its digest only.
        target: Where the tree will lie, which its build settings then name (`/opt/python/3.12`).
        without: Paths below its prefix to leave out.

    Raises:
        BuildError: A file cannot be read, or changes while it is.
    """
    sink = _Sink(out)
    count = 0
    with tarfile.open(fileobj=cast(BinaryIO, sink), mode="w|", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(_entry("", tarfile.DIRTYPE, 0o755))
        for path, place in _entries(interpreter, frozenset(without)):
            try:
                count += _add(tar, path, place, interpreter, target)
            except OSError as error:
                raise BuildError(f"cannot be read: {error.strerror}", where=str(place)) from error
            except NotReadable as error:
                raise BuildError("is a damaged program or library", where=str(place)) from error
    return Layer(f"sha256:{sink.hash.hexdigest()}", sink.size, count)


def files_stamp(interpreter: Interpreter) -> str:
    """Changes when a file does that a layer of the interpreter would hold: names, sizes and times, nothing is read.

    Raises:
        BuildError: A folder cannot be read.
    """
    digest = hashlib.sha256(f"{interpreter.prefix}\n{interpreter.built_for}\n".encode())
    for path, place in _entries(interpreter, frozenset()):
        try:
            found = place.lstat()
        except OSError as error:
            raise BuildError(f"cannot be read: {error.strerror}", where=str(place)) from error
        digest.update(f"{path!a} {found.st_mode} {found.st_size} {found.st_mtime_ns} {found.st_ino}\n".encode())
    return digest.hexdigest()


def _entries(interpreter: Interpreter, without: frozenset[str]) -> Iterator[tuple[str, Path]]:
    """(path below the prefix, what lies there), folders before what they hold."""
    prefix, version = interpreter.prefix, interpreter.version
    found: dict[str, Path] = {"bin": prefix / "bin", f"bin/python{version}": interpreter.program, "lib": prefix / "lib"}
    for path in interpreter.libraries:
        found[path] = prefix / path
    for top in (f"lib/python{version}", f"include/python{version}"):
        if (prefix / top).is_dir():
            found[posixpath.dirname(top)] = prefix / posixpath.dirname(top)
            found.update(_tree(prefix, top))
    for path in sorted(found, key=lambda path: path.split("/")):
        if path not in without:
            yield path, found[path]


def _tree(prefix: Path, top: str) -> Iterator[tuple[str, Path]]:
    yield top, prefix / top
    try:
        with os.scandir(prefix / top) as entries:
            for entry in entries:
                path = f"{top}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in _DROPPED_FOLDERS:
                        yield from _tree(prefix, path)
                elif not _DROPPED_FILES.match(entry.name):
                    yield path, prefix / path
    except OSError as error:
        raise BuildError(f"cannot be read: {error.strerror}", where=f"{prefix}/{top}") from error


def _add(tar: tarfile.TarFile, path: str, place: Path, interpreter: Interpreter, target: str) -> int:
    if place.is_symlink() and path not in (f"bin/python{interpreter.version}", *interpreter.libraries):
        link = _link(path, place, interpreter.prefix)
        if link is None:
            return 0
        entry = _entry(path, tarfile.SYMTYPE, 0o777)
        entry.linkname = link
        tar.addfile(entry)
        return 1
    status = place.stat()
    if stat.S_ISDIR(status.st_mode):
        tar.addfile(_entry(path, tarfile.DIRTYPE, 0o755))
        return 0
    if not stat.S_ISREG(status.st_mode):
        return 0
    if status.st_size > _LIMIT:
        raise BuildError("is too large for a part of an interpreter", where=str(place))
    content = _content(path, place.read_bytes(), interpreter, target)
    entry = _entry(path, tarfile.REGTYPE, 0o755 if status.st_mode & stat.S_IXUSR else 0o644)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
    return 1


def _link(path: str, place: Path, prefix: Path) -> str | None:
    """What a symlink says in the layer; None for one that leads out of the tree, or to what is not taken."""
    real = Path(os.path.realpath(place))
    if not real.is_relative_to(prefix) or not real.exists():
        return None
    below = real.relative_to(prefix).as_posix()
    dropped = any(part in _DROPPED_FOLDERS for part in below.split("/")) or _DROPPED_FILES.match(real.name)
    if dropped or not below.startswith(("lib/python", "include/python")):
        return None
    return posixpath.relpath(below, posixpath.dirname(path))


def _content(path: str, content: bytes, interpreter: Interpreter, target: str) -> bytes:
    if is_elf(content):
        known = dict.fromkeys((interpreter.built_for, os.fspath(interpreter.prefix)))
        return relocated(content, folder=posixpath.dirname(path), prefixes=[p for p in known if p])
    name = posixpath.basename(path)
    old = interpreter.built_for
    if old not in ("", "/", "/usr", "/usr/local") and (
        name.startswith("_sysconfigdata") or name in ("Makefile", "python-config.py")
    ):
        # How extension modules are built: with the headers where they are now.
        return re.sub(re.escape(old.encode()) + rb"(?=[/\s'\":]|\Z)", lambda _: target.encode(), content)
    return content


def _entry(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(f"{TOP}/{path}".rstrip("/"))
    entry.type, entry.mode, entry.mtime = kind, mode, _EPOCH
    return entry


class _Sink:
    """Where the tar goes, if anywhere, and what it was."""

    def __init__(self, out: BinaryIO | None) -> None:
        self.hash = hashlib.sha256()
        self.size = 0
        self._out = out

    def write(self, block: bytes) -> int:
        self.hash.update(block)
        self.size += len(block)
        if self._out is not None:
            self._out.write(block)
        return len(block)

"""A base's own interpreter, run on this machine without any container: to compile for images of that base.

Its files are taken out of the base and started by the base's own dynamic loader (ld.so(8), `--library-path`), so that
neither this machine's C library nor namespaces matter. No code of a package is run by it.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcbinder.errors import BuildError
from hpcbinder.squashfs import Image, Node, merge
from hpcbinder.wheels import Interpreter

_LOADERS = ("lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1", "lib64/ld64.so.2")
"""Of the architectures there are bases for."""

_LEFT_OUT = ("*/__pycache__", "*/test", "*/tests", "*/idlelib", "*/lib2to3", "*/ensurepip", "*/config-3*")
"""Globs of folders of the library that compiling needs nothing of."""


def whole(base: Sequence[Path], scratch: Path) -> Path:
    """A base as one squashed image.

    Args:
        base: Its layers, the lowest first.
        scratch: Folder for the image, if they are several.

    Raises:
        BuildError: It cannot be written.
        ConvertError: A layer is damaged.
    """
    if len(base) == 1:
        return base[0]
    path = scratch / f"base-{secrets.token_hex(4)}.squashfs"
    try:
        with path.open("w+b") as file:
            merge(base, file)
    except OSError as error:
        raise BuildError(f"the base's layers cannot be put together: {error.strerror}", where=str(path)) from error
    return path


def base_interpreter(base: Path, python: str, folder: Path) -> Interpreter:
    """Take Debian's Python out of a base.

    Args:
        base: The base, squashed (`whole`).
        python: `X.Y.Z` that it is.
        folder: New folder for its files (about 70 MB), to be removed when it is not needed any more.

    Raises:
        BuildError: There is none, or a file cannot be written.
        ConvertError: The layer is damaged.
    """
    name = f"python{'.'.join(python.split('.')[:2])}"
    try:
        with Image.open(base) as image:
            loader = next((path for each in _LOADERS if (path := _real(image, each))), None)
            program, library = _real(image, f"usr/bin/{name}"), _real(image, f"usr/lib/{name}")
            if loader is None or program is None or library is None:
                raise BuildError(f"the base has no {name} that could be run here")
            libraries = posixpath.dirname(loader)
            for path, node in _wanted(image, loader, program, library, libraries):
                _copy(image, path, node, folder)
    except OSError as error:
        raise BuildError(f"the base's {name} cannot be unpacked: {error.strerror}", where=str(folder)) from error
    argv = (str(folder / loader), "--library-path", str(folder / libraries), str(folder / program), "-s", "-S", "-B")
    return Interpreter(argv, {"PYTHONHOME": str(folder / "usr")})


def system_loader(base: Path, folder: Path, *, more: Path) -> tuple[str, ...]:
    """A base's dynamic loader with its C library: how a program that the base does not have is started as in an image.

    Args:
        base: The base, squashed (`whole`).
        folder: New folder for its files.
        more: Folder of libraries that the program brings.

    Returns:
        What stands in front of the program.

    Raises:
        BuildError: There is none, or a file cannot be written.
        ConvertError: The layer is damaged.
    """
    try:
        with Image.open(base) as image:
            loader = next((path for each in _LOADERS if (path := _real(image, each))), None)
            if loader is None:
                raise BuildError("the base has no dynamic loader")
            libraries = posixpath.dirname(loader)
            for path in (loader, *(f"{libraries}/{name}" for name in image.listdir(libraries))):
                if (node := image.lookup(path)) is not None and re.search(r"\.so(\.|$)", path):
                    _copy(image, path, node, folder)
    except OSError as error:
        raise BuildError(f"the base's C library cannot be unpacked: {error.strerror}", where=str(folder)) from error
    return str(folder / loader), "--library-path", f"{more}:{folder / libraries}"


def _real(image: Image, path: str) -> str | None:
    """Where links lead to."""
    found = image.locate(path)
    return found.strip("/") if found is not None and image.lookup(found) is not None else None


def _wanted(image: Image, loader: str, program: str, library: str, libraries: str) -> Iterator[tuple[str, Node]]:
    for path in (loader, program):
        if (node := image.lookup(path)) is not None:
            yield path, node
    for name in image.listdir(libraries):
        if re.search(r"\.so(\.|$)", name) and (node := image.lookup(f"{libraries}/{name}")) is not None:
            yield f"{libraries}/{name}", node
    for below, node in image.walk(library):
        path = f"{library}/{below}"
        if not any(fnmatch.fnmatchcase(path, f"{glob}/*") for glob in _LEFT_OUT):
            yield path, node


def _copy(image: Image, path: str, node: Node, folder: Path) -> None:
    """Files and links within a folder; what is anything else is not needed."""
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    if node.kind == "file" and not place.exists():
        with image.open_file(path) as source, place.open("xb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        place.chmod(0o755 if node.mode & 0o111 else 0o644)
    elif node.kind == "symlink" and node.target and "/" not in node.target and not place.is_symlink():
        place.symlink_to(node.target)

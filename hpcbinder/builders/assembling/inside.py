"""The Python environment of a finished image, read from its squashfs without running anything."""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from hpcbinder.contract import ENV_PREFIX
from hpcbinder.errors import BuildError, ConvertError
from hpcbinder.squashfs import Image
from hpcbinder.text import one_line

_DIST = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*?)-(?P<version>[0-9A-Za-z][0-9A-Za-z.!+_-]*)\.dist-info")
_VERSION = re.compile(r"^version_info\s*=\s*(3\.\d{1,2}\.\d{1,3})\s*$", re.MULTILINE)
_CONDA = re.compile(r"python-(3\.\d{1,2}\.\d{1,3})-[^-]+\.json")
_LIMIT = 16 << 20


@dataclass(frozen=True)
class Installed:
    """A package of the environment.

    Attributes:
        version: As its metadata folder says.
        folder: That folder, absolute in the image.
        elsewhere: It came from a URL, a repository or a folder, not from the index.
    """

    version: str
    folder: str
    elsewhere: bool


@dataclass(frozen=True)
class Environment:
    """What an image has at /opt/env.

    Attributes:
        python: `X.Y.Z`.
        packages: Normalised name (PEP 503) -> it.
    """

    python: str
    packages: Mapping[str, Installed]

    @property
    def site(self) -> str:
        """Where its modules are."""
        return f"{ENV_PREFIX}/lib/python{'.'.join(self.python.split('.')[:2])}/site-packages"


def environment_of(image: Image) -> Environment:
    """Look at an image's environment.

    Raises:
        BuildError: It has none that wheels can be unpacked into.
        ConvertError: The image is damaged.
    """
    python = _python(image)
    if python is None or image.locate(f"{ENV_PREFIX}/bin/python") is None:
        raise BuildError(f"the image has no Python environment at {ENV_PREFIX}")
    site = Environment(python, {}).site
    node = image.lookup(site)
    if node is None or node.kind != "directory":
        raise BuildError(f"the image's Python {python} has no {site}")
    found: dict[str, Installed] = {}
    for name in image.listdir(site):
        if match := _DIST.fullmatch(name):
            folder = f"{site}/{name}"
            elsewhere = image.lookup(f"{folder}/direct_url.json") is not None or "+" in match["version"]
            found[re.sub(r"[-_.]+", "-", match["name"]).lower()] = Installed(match["version"], folder, elsewhere)
    return Environment(python, found)


def _python(image: Image) -> str | None:
    """`X.Y.Z` of the environment: what made it wrote that down (docs.python.org, `venv`; conda's own record)."""
    node = image.lookup(f"{ENV_PREFIX}/pyvenv.cfg")
    if node is not None and node.kind == "file":
        match = _VERSION.search(image.read(f"{ENV_PREFIX}/pyvenv.cfg", 1 << 16).decode("utf-8", "replace"))
        return match[1] if match else None
    folder = image.lookup(f"{ENV_PREFIX}/conda-meta")
    if folder is None or folder.kind != "directory":
        return None
    return next((m[1] for name in image.listdir(f"{ENV_PREFIX}/conda-meta") if (m := _CONDA.fullmatch(name))), None)


def files_of(image: Image, packages: Iterable[Installed]) -> set[str]:
    """What goes with some packages: the files that their RECORDs name below the environment, their bytecode, and
    folders that then hold nothing (packaging.python.org, "Recording installed projects").

    Returns:
        Absolute paths; none below another.

    Raises:
        BuildError: A package does not say which files it has.
        ConvertError: The image is damaged.
    """
    files: set[str] = set()
    for package in packages:
        for name in _record(image, package):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(package.folder), name))
            # What a RECORD says of other places is nobody's business.
            if path.startswith(f"{ENV_PREFIX}/") and (node := image.lookup(path)) is not None:
                if node.kind != "directory":
                    files.add(path)
                if path.endswith(".py"):
                    files |= _bytecode(image, path)
        files |= {f"{package.folder}/{name}" for name in image.listdir(package.folder)}
    return _whole(image, files)


def _record(image: Image, package: Installed) -> list[str]:
    path = f"{package.folder}/RECORD"
    node = image.lookup(path)
    if node is None or node.kind != "file" or node.size > _LIMIT:
        raise BuildError("does not say which of the environment's files it has", where=one_line(package.folder, 200))
    text = image.read(path, _LIMIT).decode("utf-8", "replace")
    try:
        return [row[0] for row in csv.reader(io.StringIO(text)) if row and row[0] and "\0" not in row[0]]
    except csv.Error:
        raise BuildError("has a RECORD that cannot be read", where=one_line(package.folder, 200)) from None


def _bytecode(image: Image, path: str) -> set[str]:
    folder, _, name = path.rpartition("/")
    cache = f"{folder}/__pycache__"
    node = image.lookup(cache)
    if node is None or node.kind != "directory":
        return set()
    start = f"{name.removesuffix('.py')}."
    names = (other for other in image.listdir(cache) if other.startswith(start) and other.endswith(".pyc"))
    return {f"{cache}/{other}" for other in names if other.removeprefix(start).startswith("cpython-")}


def _whole(image: Image, files: Collection[str]) -> set[str]:
    """The same with folders in place of all that is in them."""
    gone = set(files)
    folders = {posixpath.dirname(path) for path in gone}
    for folder in sorted(_above(folders), key=lambda path: -path.count("/")):
        try:
            names = image.listdir(folder)
        except ConvertError:
            continue
        if all(f"{folder}/{name}" in gone for name in names):
            gone.add(folder)
    return {path for path in gone if not any(part in gone for part in _parents(path))}


def _above(folders: Iterable[str]) -> set[str]:
    """Folders of packages and those above them, up to where packages lie."""
    found = set()
    for folder in folders:
        for path in (folder, *_parents(folder)):
            if path.count("/") > ENV_PREFIX.count("/") + 1 and not path.endswith("/site-packages"):
                found.add(path)
    return found


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(2, len(parts))]

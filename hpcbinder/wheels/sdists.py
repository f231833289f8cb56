"""Source distributions of an index: which one a requirement means, and what building it takes.

Formats: packaging.python.org, "Simple repository API", "Source distribution format" and PEP 518.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hpcbinder.config import redact
from hpcbinder.errors import BuildError, FetchError
from hpcbinder.text import one_line
from hpcbinder.wheels.index import anchors, join

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

ENDINGS = (".tar.gz", ".zip")
"""Of names of source archives that are built here."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BACKEND = re.compile(r"[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*)?")
_LARGEST_PROJECT = 4 << 20
"""Bytes of a pyproject.toml."""
_MOST_MEMBERS = 500_000
LEGACY = ("setuptools.build_meta:__legacy__", ("setuptools>=40.8.0",))
"""Backend and requirements of a source that names none (PEP 517, "Source trees"; PEP 518)."""


@dataclass(frozen=True)
class Sdist:
    """A source archive of an index.

    Attributes:
        version: As its name has it.
        filename: Its name.
        url: Where it is.
        sha256: Of the file, hex.
        python: Versions it says it runs on, "" for any.
        yanked: Its authors took it back.
        uploaded: When (RFC 3339), "" if the index does not say it.
    """

    version: str
    filename: str
    url: str
    sha256: str
    python: str = ""
    yanked: bool = False
    uploaded: str = ""


@dataclass(frozen=True)
class BuildSystem:
    """What pyproject.toml says of a build.

    Attributes:
        backend: `module:object`.
        requires: Requirement lines.
        path: Folders of the source that the backend is in.
    """

    backend: str
    requires: tuple[str, ...]
    path: tuple[str, ...] = ()


def read_sdists(content: bytes, kind: str, url: str, name: str) -> Iterator[Sdist]:
    """The source archives on a package's page that have a SHA-256.

    Args:
        content: The page.
        kind: Its content type.
        url: Where it came from in the end.
        name: The package, normalised.

    Raises:
        FetchError: It is no such page.
    """
    from packaging.utils import InvalidSdistFilename, parse_sdist_filename
    from packaging.version import InvalidVersion

    try:
        text = content.decode("utf-8")
        entries = _entries(text) if "json" in kind else _links(text)
        for filename, link, sha256, python, yanked, uploaded in entries:
            try:
                found, version = parse_sdist_filename(filename)
            except (InvalidSdistFilename, InvalidVersion, ValueError):
                continue
            if found == name and filename.endswith(ENDINGS) and _SHA256.fullmatch(sha256):
                yield Sdist(str(version), filename, join(url, link), sha256, python, yanked, uploaded)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise FetchError("the index's page is not what PEP 691 says", where=one_line(redact(url), 200)) from None


def _entries(text: str) -> Iterator[tuple[str, str, str, str, bool, str]]:
    for entry in json.loads(text)["files"]:
        sha256 = str((entry.get("hashes") or {}).get("sha256", ""))
        python = str(entry.get("requires-python") or "")
        uploaded = str(entry.get("upload-time") or "")
        yield str(entry["filename"]), str(entry["url"]), sha256, python, bool(entry.get("yanked")), uploaded


def _links(text: str) -> Iterator[tuple[str, str, str, str, bool, str]]:
    for name, target, fragment, attributes in anchors(text):
        match = re.search(r"sha256=([0-9a-f]{64})", fragment)
        python = str(attributes.get("data-requires-python") or "")
        uploaded = str(attributes.get("data-upload-time") or "")
        yield name, target, match[1] if match else "", python, "data-yanked" in attributes, uploaded


def choose_sdist(
    found: Iterable[Sdist],
    name: str,
    wanted: SpecifierSet,
    *,
    hashes: frozenset[str],
    python: str,
    prereleases: bool,
    as_of: str = "",
) -> Sdist:
    """The newest source archive that will do.

    Args:
        name: The package.
        wanted: Its versions.
        hashes: `sha256:…` that it must have one of; empty for any.
        python: `X.Y.Z` it is built for.
        prereleases: These will do, too.
        as_of: Time (RFC 3339 in UTC): what was uploaded later, or at a time that the index does not say, is taken only
            where there is nothing else.

    Raises:
        BuildError: None will do.
    """
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import Version

    def fits(sdist: Sdist) -> bool:
        try:
            runs = SpecifierSet(sdist.python).contains(python, prereleases=True)
        except InvalidSpecifier:
            runs = True
        exact = any(each.operator in ("==", "===") for each in wanted)
        return runs and (exact or not sdist.yanked) and (not hashes or f"sha256:{sdist.sha256}" in hashes)

    known = {sdist.version: sdist for sdist in found if fits(sdist)}
    there = [version for version, sdist in known.items() if "" < sdist.uploaded[:19] <= as_of]
    # Without leave they will do where there is nothing else (PEP 440, "Handling of pre-releases").
    leave = True if prereleases else None
    versions = list(wanted.filter(there, prereleases=leave)) or list(wanted.filter(known, prereleases=leave))
    if not versions:
        raise BuildError(f"{name}{wanted} has neither a wheel nor a source archive that could be built here")
    return known[max(versions, key=Version)]


def read_build_system(path: Path, subdirectory: str = "") -> BuildSystem:
    """What building a source takes: of an archive (`ENDINGS`) or a folder. Nothing is unpacked or run.

    Args:
        subdirectory: Where in it the project is.

    Raises:
        BuildError: The archive or its pyproject.toml cannot be read, or says what cannot be.
    """
    try:
        if path.is_dir():
            file = path / subdirectory / "pyproject.toml"
            raw = b""
            # Links of the repository may lead to files of ours.
            if file.resolve().is_relative_to(path.resolve()) and file.is_file():
                with file.open("rb") as stream:
                    raw = stream.read(_LARGEST_PROJECT + 1)
        elif path.name.endswith(".zip"):
            raw = _from_zip(path, subdirectory)
        else:
            raw = _from_tar(path, subdirectory)
    except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError) as error:
        raise BuildError(f"the source archive cannot be read: {one_line(str(error), 200)}") from None
    if len(raw) > _LARGEST_PROJECT:
        raise BuildError("its pyproject.toml is too large")
    return _build_system(raw)


def _from_tar(path: Path, subdirectory: str) -> bytes:
    with tarfile.open(path, "r|*") as tar:
        for number, member in enumerate(tar):
            if number > _MOST_MEMBERS:
                break
            if member.isreg() and _is_project(member.name, subdirectory):
                stream = tar.extractfile(member)
                return _read(stream) if stream is not None else b""
    return b""


def _from_zip(path: Path, subdirectory: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if _is_project(name, subdirectory):
                with archive.open(name) as stream:
                    return _read(stream)
    return b""


def _is_project(name: str, subdirectory: str) -> bool:
    wanted = [*subdirectory.split("/"), "pyproject.toml"] if subdirectory else ["pyproject.toml"]
    return [part for part in name.split("/") if part not in ("", ".")][1:] == wanted


def _read(stream: IO[bytes]) -> bytes:
    return stream.read(_LARGEST_PROJECT + 1)


def _build_system(raw: bytes) -> BuildSystem:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
    try:
        table: Any = tomllib.loads(raw.decode("utf-8")).get("build-system")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        raise BuildError("its pyproject.toml is malformed") from None
    if table is None:
        return BuildSystem(*LEGACY)
    if not isinstance(table, dict):
        raise BuildError("its pyproject.toml has no table [build-system]")
    backend = table.get("build-backend", LEGACY[0])
    requires, path = table.get("requires", []), table.get("backend-path", [])
    if not isinstance(backend, str) or not _BACKEND.fullmatch(backend):
        raise BuildError("its pyproject.toml names no build backend that could be")
    if not all(isinstance(part, list) and all(isinstance(item, str) for item in part) for part in (requires, path)):
        raise BuildError("its pyproject.toml does not say what its build needs in lists of texts")
    if any(item.startswith("/") or ".." in item.split("/") for item in path):
        raise BuildError("its build backend is outside of it")
    return BuildSystem(backend, tuple(requires), tuple(path))

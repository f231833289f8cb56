"""pylock.toml: what PEP 751 has an installer install, for the image's interpreter, without extras.

The format is the specification's (https://packaging.python.org/en/latest/specifications/pylock-toml/). Groups are those
the file itself names as `default-groups`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hpcbinder.plan import Repo, show

from .locked import Document, File, Locked, Pin, Reader
from .target import Target

NAMED = re.compile(r"pylock\.([^./]+)\.toml\Z")
"""Name of a lock that stands beside others."""


def read_pylock(repo: Repo, document: Document, target: Target) -> Locked:
    """Read a pylock.toml.

    Raises:
        DetectError: Not such a file, one for other interpreters, or something in it that is not allowed.
    """
    values = document.values
    version = document.word(values.get("lock-version"))
    if version.partition(".")[0] != "1":
        document.fail(f"is version {show(version) or '(none)'} of the lock format; 1.0 can be read")
    environments = document.words(values.get("environments"))
    if environments and not any(target.holds(marker, document.at()) for marker in environments):
        document.fail(f"is no lock for Python {target.python.full} on {target.platform}")
    groups = document.words(values.get("default-groups"))
    reader = Reader(repo, document, target)
    for package in document.tables(values.get("packages")):
        name = reader.name(package.get("name"))
        marker = document.word(package.get("marker"), name)
        if not target.holds(marker, document.at(name), groups=groups):
            continue
        if not target.runs(document.word(package.get("requires-python"), name), document.at(name)):
            document.fail(f"locks a {name} that does not run on Python {target.python.full}", name)
        reader.add(_pin(reader, name, package))
    notes = [f"with the group {', '.join(show(group) for group in groups)}, its default"] if groups else []
    return reader.result(notes=notes)


def _pin(reader: Reader, name: str, package: Mapping[str, Any]) -> Pin:
    document, word = reader.document, reader.document.word
    version = reader.version(package["version"], name) if "version" in package else ""
    if vcs := document.table(package.get("vcs"), name):
        kind, url = word(vcs.get("type"), name), word(vcs.get("url"), name)
        if kind != "git" or not url:
            document.fail(f"takes {name} from version control other than a git URL", name)
        commit, subdirectory = word(vcs.get("commit-id"), name), word(vcs.get("subdirectory"), name)
        return reader.git(name, version, url, commit, subdirectory=subdirectory)
    if directory := document.table(package.get("directory"), name):
        path = word(directory.get("path"), name)
        if subdirectory := word(directory.get("subdirectory"), name):
            path = f"{path}/{subdirectory}"
        return reader.local(name, path, editable=directory.get("editable") is True)
    if archive := document.table(package.get("archive"), name):
        if path := word(archive.get("path"), name):
            return reader.local(name, path)
        url, subdirectory = word(archive.get("url"), name), word(archive.get("subdirectory"), name)
        return reader.url(name, version, url, [_file(reader, archive, name)], subdirectory=subdirectory)
    entries = document.tables(package.get("wheels"), name)
    if sdist := document.table(package.get("sdist"), name):
        entries = [*entries, sdist]
    files = tuple(_file(reader, entry, name) for entry in entries)
    index = word(package.get("index"), name)
    if index:
        return Pin(name, version, files, reader.index(index, name))
    return _without_index(reader, name, version, entries, files)


def _without_index(
    reader: Reader, name: str, version: str, entries: list[Mapping[str, Any]], files: tuple[File, ...]
) -> Pin:
    """A package whose files are just where they are: on PyPI's own servers (then it is a package of the index),
    somewhere else, or in the repository."""
    fitting = [number for number, file in enumerate(files) if reader.target.fits(file.name)]
    best = entries[fitting[0] if fitting else -1] if entries else {}
    path, url = reader.document.word(best.get("path"), name), reader.document.word(best.get("url"), name)
    if path:
        return reader.local(name, path)
    if url.startswith("https://files.pythonhosted.org/") and version:
        return Pin(name, version, files)
    if not url:
        reader.document.fail(f"says not where {name} comes from", name)
    return reader.url(name, version, url, [files[fitting[0] if fitting else -1]])


def _file(reader: Reader, entry: Mapping[str, Any], name: str) -> File:
    hashes = reader.document.table(entry.get("hashes"), name)
    return reader.file(entry, name, hash_=f"sha256:{hashes.get('sha256', '')}")

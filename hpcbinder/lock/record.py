"""Locks that an image says it was made with, to make it again."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hpcbinder.catalog import parse
from hpcbinder.errors import CatalogError, UsageError
from hpcbinder.lock.pylock import NAME, VERSION
from hpcbinder.model import Lock, LockedPackage

_HASH = re.compile(r"sha(256|384|512):[0-9a-f]{64,128}")
_URL = re.compile(r"https://[\x21\x23\x25-\x26\x28-\x5b\x5d\x5f\x61-\x7a\x7e]+")
_CONDA_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*")
_CONDA_VERSION = re.compile(r"[0-9a-z][0-9a-z.!+_]*", re.IGNORECASE)
_CONDA_BUILD = re.compile(r"[0-9A-Za-z_.+]+")
_CONDA_FILE = re.compile(
    r"https?://[\x21\x23\x25-\x26\x28-\x5b\x5d\x5f\x61-\x7a\x7e]+/[a-z0-9-]+/[^/?#]+(\.conda|\.tar\.bz2)"
)
"""Names as in conda's package specification (docs.conda.io, "Package specification")."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_LIMIT = 64 << 20


def read_locks(path: Path) -> tuple[Lock, ...]:
    """The locks in a file: an image's `manifest.json`, or what `hpcbinder show --json` or `plan --json` printed.

    Raises:
        UsageError: It cannot be read, or holds no locks.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LIMIT + 1)
        value = json.loads(raw) if len(raw) <= _LIMIT else None
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (ValueError, RecursionError):
        value = None
    entries = value.get("locks") if isinstance(value, dict) else None
    try:
        locks: tuple[Lock, ...] = parse(json.dumps(entries).encode(), tuple[Lock, ...], path)
    except CatalogError:
        locks = ()
    if not locks or not all(map(sound, locks)):
        raise UsageError(
            "holds no locks", where=str(path), hint="give an image's manifest.json, or what show --json printed"
        )
    return locks


def sound(lock: Lock) -> bool:
    """Whether a lock that was read from a file can be one: its words go into requirement lines."""
    names = sorted(name for layer in lock.layers for name in layer)
    each = _sound_conda if lock.ecosystem == "conda" else _sound
    return bool(
        names == [package.name for package in lock.packages]
        and all(map(each, lock.packages))
        and all(NAME.fullmatch(name) for name in lock.unresolved)
        and (not lock.as_of or _TIME.fullmatch(lock.as_of))
    )


def _sound_conda(package: LockedPackage) -> bool:
    file = f"/{package.name}-{package.version}-{package.build}"
    return bool(
        _CONDA_NAME.fullmatch(package.name)
        and _CONDA_VERSION.fullmatch(package.version)
        and _CONDA_BUILD.fullmatch(package.build)
        and len(package.hashes) == 1
        and _HASH.fullmatch(package.hashes[0])
        and package.hashes[0].startswith("sha256:")
        and _CONDA_FILE.fullmatch(package.url)
        and package.url.removesuffix(".conda").removesuffix(".tar.bz2").endswith(file)
        and package.size >= 0
    )


def _sound(package: LockedPackage) -> bool:
    return bool(
        NAME.fullmatch(package.name)
        and VERSION.fullmatch(package.version)
        and package.hashes
        and all(_HASH.fullmatch(value) for value in package.hashes)
        and (not package.url or _URL.fullmatch(package.url))
    )

"""What uv found, read with suspicion: names, versions and hashes come from an index, and go into requirement lines."""

from __future__ import annotations

import re
import sys
from datetime import datetime, timezone
from typing import Any

from hpcbinder.errors import FetchError
from hpcbinder.model import LockedPackage
from hpcbinder.text import one_line

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
VERSION = re.compile(r"[0-9a-z][0-9a-z.!+_-]*", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_pylock(text: str) -> tuple[LockedPackage, ...]:
    """The packages of a pylock.toml that uv wrote (packaging.python.org, "pylock.toml Specification"), sorted by name.

    Raises:
        FetchError: Something in it is not what it should be.
    """
    try:
        packages = _parsed(text).get("packages", [])
        found = {package.name: package for package in map(_package, packages)}
    except (KeyError, TypeError, AttributeError) as error:
        raise _bad(f"what uv found cannot be read: {error}") from error
    return tuple(found[name] for name in sorted(found))


def timeless(text: str) -> frozenset[str]:
    """Names of the packages in a pylock.toml that uv wrote, of none of whose wheels the index said when it was
    uploaded."""
    packages = _parsed(text).get("packages", [])
    return frozenset(
        str(package["name"])
        for package in packages
        if not any(wheel.get("upload-time") for wheel in package.get("wheels", []))
    )


def uploads(text: str) -> dict[str, tuple[str, str]]:
    """Name -> version and when its first wheel was uploaded (RFC 3339; "" where the index did not say), of the packages
    in a pylock.toml that uv wrote."""
    found = {}
    for package in _parsed(text).get("packages", []):
        said = [wheel.get("upload-time") for wheel in package.get("wheels", [])]
        # TOML has times of its own.
        known = [
            f"{value.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}" for value in said if isinstance(value, datetime)
        ]
        found[str(package["name"])] = (str(package["version"]), min(known, default=""))
    return found


def _parsed(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _bad(f"what uv found cannot be read: {error}") from error
    return values


def _package(entry: dict[str, Any]) -> LockedPackage:
    name, version = str(entry["name"]), str(entry["version"])
    if not NAME.fullmatch(name) or not VERSION.fullmatch(version):
        raise _bad(f"the index has a package '{name}' of version '{version}'")
    digests = [str(wheel.get("hashes", {}).get("sha256", "")) for wheel in entry.get("wheels", [])]
    if not digests or not all(map(_SHA256.fullmatch, digests)):
        raise _bad(f"the index has no SHA-256 for the wheels of {name} {version}")
    return LockedPackage(name, version, tuple(sorted({f"sha256:{digest}" for digest in digests})))


def _bad(message: str) -> FetchError:
    return FetchError(one_line(message, 300), hint="check site.pip_index_url; --no-lock leaves it to the build")

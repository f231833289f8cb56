"""Julia's releases, and which of them a project allows."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Version = tuple[int, int, int]

_NUMBER = r"([0-9]{1,6})(?:\.([0-9]{1,6}))?(?:\.([0-9]{1,6}))?"
_SINGLE = re.compile(rf"(?P<how>\^|~|=|>=|≥|<=|≤|<|>)?\s*v?{_NUMBER}\Z")
_RANGE = re.compile(rf"{_NUMBER}\s+-\s+{_NUMBER}\Z")


@dataclass(frozen=True)
class Release:
    """A release's tar for one kind of machine.

    Attributes:
        path: Below the folder of all programs.
        sha256: Hex.
    """

    version: str
    path: str
    sha256: str


def releases(architecture: str) -> Mapping[str, Release]:
    """The releases there are for a kind of machine (OCI name), the oldest first."""
    column, folder, machine = {"amd64": (0, "x64", "x86_64"), "arm64": (1, "aarch64", "aarch64")}[architecture]
    found = {}
    for version, *sums in _table():
        minor = ".".join(version.split(".")[:2])
        if sums[column] != "-":
            path = f"linux/{folder}/{minor}/julia-{version}-linux-{machine}.tar.gz"
            found[version] = Release(version, path, sums[column])
    return found


def numbers(version: str) -> Version:
    """`1.10.4` as numbers."""
    major, minor, patch = (int(number) for number in version.split("."))
    return major, minor, patch


def allows(spec: str, version: str) -> bool | None:
    """Whether a `[compat]` entry allows a version (Pkg.jl, "Compatibility"); None for one that cannot be read."""
    there, allowed = numbers(version), False
    for word in spec.split(","):
        if (match := _RANGE.match(word.strip())) is not None:
            low, high = match.groups()[:3], match.groups()[3:]
            allowed |= _full(low) <= there < _above(high, _given(high))
            continue
        single = _SINGLE.match(word.strip())
        if single is None:
            return None
        parts = single.groups()[1:]
        low, how = _full(parts), single["how"] or "^"
        if how == "^":
            # The first number that is not 0 stays; of `0.0` the last one that is given.
            kept = next((place + 1 for place in range(3) if low[place]), _given(parts))
            allowed |= low <= there < _above(parts, min(kept, _given(parts)))
        elif how == "~":
            allowed |= low <= there < _above(parts, min(2, _given(parts)))
        elif how == "=":
            allowed |= there == low
        else:
            allowed |= {"≥": there >= low, "≤": there <= low, ">": there > low, "<": there < low}[
                how.replace(">=", "≥").replace("<=", "≤")
            ]
    return allowed


def _given(parts: tuple[str | None, ...]) -> int:
    return sum(part is not None for part in parts)


def _full(parts: tuple[str | None, ...]) -> Version:
    major, minor, patch = (int(part or 0) for part in parts)
    return major, minor, patch


def _above(parts: tuple[str | None, ...], kept: int) -> Version:
    """The first version in which one of the first `kept` numbers is another."""
    full = list(_full(parts))
    full[kept - 1] += 1
    full[kept:] = [0] * (3 - kept)
    return full[0], full[1], full[2]


@functools.cache
def _table() -> tuple[tuple[str, ...], ...]:
    text = Path(__file__).with_name("releases.txt").read_text(encoding="utf-8")
    return tuple(tuple(line.split()) for line in text.splitlines() if not line.startswith("#"))

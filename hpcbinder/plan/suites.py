"""The Debian suites a base can be made of, and the Python each one has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hpcbinder.debian import END_OF_LIFE
from hpcbinder.model import Python

BASE_VARIANT = "1"
"""Version of our own recipe for a base (hpcbinder.bases): raise it when that recipe changes what is in the base."""


@dataclass(frozen=True)
class Suite:
    """A Debian release.

    Attributes:
        name: Code name.
        python: `X.Y` of its python3.
        python_full: Full version of it, as the release shipped.
        glibc: `X.Y` of its C library: which wheels run on it.
    """

    name: str
    python: str
    python_full: str
    glibc: str


SUITES = {
    "buster": Suite("buster", "3.7", "3.7.3", "2.28"),
    "bullseye": Suite("bullseye", "3.9", "3.9.2", "2.31"),
    "bookworm": Suite("bookworm", "3.11", "3.11.2", "2.36"),
    "trixie": Suite("trixie", "3.13", "3.13.5", "2.41"),
}


SUPPORTED = tuple(name for name in SUITES if name not in END_OF_LIFE)
"""Suites that Debian still mends: a base of another one is made only where a site says so."""


def debian_python(suite: str) -> Python:
    """A suite's own interpreter."""
    return Python(SUITES[suite].python, SUITES[suite].python_full, suite, "debian")


OLDEST = "3.8"
"""The oldest Python of an environment: the oldest whose ipykernel speaks to the server of today."""


def too_old(version: str) -> bool:
    """Whether no notebook's kernel runs on a Python `X.Y`."""
    return _number(version) < _number(OLDEST)


def served(pythons: Iterable[Python]) -> str:
    """`3.11 (Debian bookworm) or 3.13 (Debian trixie)`, for a message: each version once, from where it would come."""
    first: dict[str, Python] = {}
    for python in pythons:
        if not too_old(python.version):
            first.setdefault(python.version, python)
    words = [f"{version} ({_place(first[version])})" for version in sorted(first, key=_number)]
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else "none"


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _place(python: Python) -> str:
    return f"Debian {python.suite}" if python.origin == "debian" else python.source

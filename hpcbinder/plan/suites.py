"""The Debian suites a base can be made of, and the Python each one has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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
    """

    name: str
    python: str
    python_full: str


SUITES = {
    "bookworm": Suite("bookworm", "3.11", "3.11.2"),
    "trixie": Suite("trixie", "3.13", "3.13.5"),
}


def debian_pythons(suite: str) -> tuple[Python, ...]:
    """The suites' own interpreters, that of the wanted suite first."""
    names = dict.fromkeys((suite, *SUITES))
    return tuple(Python(SUITES[name].python, SUITES[name].python_full, name, "debian") for name in names)


def served(pythons: Iterable[Python]) -> str:
    """`3.11 (Debian bookworm) or 3.13 (Debian trixie)`, for a message."""
    return " or ".join(f"{python.version} ({_place(python)})" for python in pythons)


def _place(python: Python) -> str:
    return f"Debian {python.suite}" if python.origin == "debian" else python.source

"""The Debian suites a base can be made of, and the Python each one has."""

from __future__ import annotations

from dataclasses import dataclass

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


def served() -> str:
    """`3.11 (Debian bookworm) or 3.13 (Debian trixie)`, for a message."""
    return " or ".join(f"{suite.python} (Debian {suite.name})" for suite in SUITES.values())

"""The Debian suites a base can be made of, and the Python each one has."""

from __future__ import annotations

from collections.abc import Collection, Iterable
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


OLDER = {"2.7": ("bullseye", "2.7.18"), "3.9": ("bullseye", "3.9.2")}
"""Python -> the older release that has it, and its full version there: on the base of a newer release its packages are
laid in a folder of their own (hpcbinder.bases). Debian's mirrors have these as long as they have the release."""

PYTHON_2 = "2.7"
OLDEST = "3.5"
"""The oldest Pythons of an environment, of 2 and of 3: their last ipykernel still speaks to the server of today."""

UV_OLDEST = "3.6"
"""The oldest Python that uv makes environments and finds versions for
(https://docs.astral.sh/uv/reference/policies/python/; checked with uv 0.13)."""


def too_old(version: str) -> bool:
    """Whether no notebook's kernel runs on a Python `X.Y`."""
    return version != PYTHON_2 and _number(version) < _number(OLDEST)


def served_by_uv(version: str) -> bool:
    """Whether uv knows a Python `X.Y`; for others there is pip."""
    return _number(version) >= _number(UV_OLDEST)


def has_old_metadata(version: str) -> bool:
    """Whether there are wheels for a Python `X.Y` whose metadata only an old pip reads (pandas before 0.25)."""
    return _number(version) < _number("3.9")


def older_pythons(suite: str, releases: Collection[str]) -> tuple[Python, ...]:
    """Interpreters that a base of a suite can have from the packages of older releases, newest first."""
    names = list(SUITES)
    return tuple(
        Python(version, full, suite, "packages", f"/opt/python/{version}/bin/python{version}", f"Debian {older}")
        for version, (older, full) in sorted(OLDER.items(), key=lambda item: _number(item[0]), reverse=True)
        if older in releases and names.index(older) < names.index(suite) and version != SUITES[suite].python
    )


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

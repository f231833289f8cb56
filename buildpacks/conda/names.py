"""What conda packages are called elsewhere, where that is another name (translations.toml)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

_OF_PYTHON = re.compile(r"(^|_|\d)py(\d|_|h)")
"""In the build string of what is made for a Python (conda-build: `py312h…_0`, `pyhd8ed1ab_0`, `py_0`). `tzdata`, say,
is another thing to conda than to Python."""


@dataclass(frozen=True)
class Table:
    """What is known of conda packages.

    Attributes:
        packages: Conda's name -> requirements of the Python index, Debian packages.
        leaves: Conda's name, or a pattern of such names (`fnmatch`) -> why nothing is missing without it.
        refused: Conda's name -> why it has no counterpart.
    """

    packages: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    leaves: Mapping[str, str]
    refused: Mapping[str, str]

    def needless(self, name: str) -> str | None:
        """Why nothing is missing without a package; None if something is."""
        if name in self.packages or name in self.refused:
            return None
        return next((why for known, why in self.leaves.items() if fnmatchcase(name, known)), None)


def of_python(build: str) -> bool:
    """Whether a build string is that of a package for Python."""
    return _OF_PYTHON.search(build) is not None


def index_name(name: str, version: str, build: str, table: Table) -> str | None:
    """The normalised name (PEP 503) that a conda package most likely has on the index; None if it is not of Python."""
    from packaging.version import InvalidVersion, Version

    elsewhere, _ = table.packages.get(name, ((), ()))
    found = re.sub(r"[-_.]+", "-", elsewhere[0].partition("[")[0] if elsewhere else name).lower()
    try:
        Version(version)
    except InvalidVersion:
        return None
    return found if of_python(build) and re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", found) else None

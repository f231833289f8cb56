"""What Debian's releases have of R."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

BASE = frozenset(
    (
        *("base", "compiler", "datasets", "graphics", "grDevices", "grid", "methods", "parallel", "splines", "stats"),
        *("stats4", "tcltk", "tools", "translations", "utils"),
    )
)
"""Packages that are R itself (r-base-core)."""


@dataclass(frozen=True)
class Release:
    """The R of a Debian release.

    Attributes:
        version: `X.Y.Z`.
        released: When that was R's newest.
    """

    version: str
    released: date


RELEASES = {
    "bullseye": Release("4.0.4", date(2021, 2, 15)),
    "bookworm": Release("4.2.2", date(2022, 10, 31)),
    "trixie": Release("4.5.0", date(2025, 4, 11)),
}
"""Debian release -> its R (packages.debian.org/r-base-core; CRAN, "R News")."""


def packages(suite: str) -> Mapping[str, str]:
    """Debian's R packages in a release: name there -> upstream's version."""
    return _table().get(suite, {})


def debian_name(name: str, suite: str) -> str | None:
    """What Debian calls an R package, None where it has none of that name.

    Args:
        name: As CRAN or Bioconductor has it.
    """
    there = packages(suite)
    return next((known for place in ("cran", "bioc") if (known := f"r-{place}-{name.lower()}") in there), None)


def at_least(version: str, wanted: str) -> bool:
    """Whether a version of an R package is not older than another one (R's `package_version`)."""
    return _numbers(version) >= _numbers(wanted)


def same(version: str, wanted: str) -> bool:
    """Whether two versions of an R package are one."""
    return _numbers(version) == _numbers(wanted)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number[:9]) for number in re.findall(r"[0-9]+", version))


@functools.cache
def _table() -> Mapping[str, Mapping[str, str]]:
    found: dict[str, dict[str, str]] = {}
    suites: list[str] = []
    for line in Path(__file__).with_name("debian.txt").read_text(encoding="utf-8").splitlines():
        name, *versions = line.split()
        if name == "package":
            suites = versions
        elif name != "#":
            for suite, version in zip(suites, versions, strict=bool(suites)):
                if version != "-":
                    found.setdefault(suite, {})[name] = version
    return found

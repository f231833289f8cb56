"""Names of packages that a Debian release does not have, and what it has in their place.

Lists of packages are mostly written for Ubuntu, or for a release of years ago. names.txt was checked against the lists
of the releases: no name in it stands for one that its release has itself.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path


def renamed(name: str, suite: str) -> str | None:
    """What a Debian release calls a package.

    Returns:
        Its name there: the same, as far as is known; None where the release is known to have nothing like it.
    """
    now = _table().get(suite, {}).get(name, "=")
    return {"=": name, "-": None}.get(now, now)


@functools.cache
def _table() -> Mapping[str, Mapping[str, str]]:
    found: dict[str, dict[str, str]] = {}
    suites: list[str] = []
    for line in Path(__file__).with_name("names.txt").read_text(encoding="utf-8").splitlines():
        name, *there = line.split()
        if name == "name":
            suites = there
            found = {suite: {} for suite in suites}
        elif name != "#":
            for suite, now in zip(suites, there, strict=True):
                found[suite][name] = now
    return found

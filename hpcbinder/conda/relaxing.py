"""Exports of environments (`conda env export`): every package with its version and build, on a machine of long ago.

Channels lose builds and mark versions as broken, so that often not all of it can be had. What gives way is decided
here: first builds, then versions of what others brought along, then versions of the rest; and what came of it is said.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hpcbinder.model import Lock

_PINNED = re.compile(
    r"(?P<name>(?:[^\s:]+::)?[A-Za-z0-9_][A-Za-z0-9_.-]*)\s*={1,2}\s*(?P<version>[A-Za-z0-9_.!+]+)(=(?P<build>[A-Za-z0-9_.]+))?"
)
_SHOWN = 8
"""Packages that a note names."""


@dataclass(frozen=True)
class Pinned:
    """A line of an export.

    Attributes:
        name: With its channel, if it has one (`conda-forge::numpy`).
        version: Exact.
        build: "" for any.
    """

    name: str
    version: str
    build: str

    @property
    def package(self) -> str:
        """The name alone."""
        return self.name.rpartition("::")[2].lower()

    def to(self, parts: int) -> str:
        """A match spec of as many parts of the version."""
        if self.version.count(".") < parts:
            return f"{self.name}=={self.version}"
        return f"{self.name} {'.'.join(self.version.split('.')[:parts])}.*"


def pinned(spec: str) -> Pinned | None:
    """A match spec that names one version, as exports have them; None for any other."""
    match = _PINNED.fullmatch(spec)
    return Pinned(match["name"], match["version"], match["build"] or "") if match else None


def without_builds(specs: Sequence[str]) -> list[str]:
    """The first thing that gives way."""
    found = ((spec, pinned(spec)) for spec in specs)
    return [f"{each.name}=={each.version}" if each is not None else spec for spec, each in found]


def looser(specs: Sequence[str], depends: Mapping[str, Collection[str]]) -> list[list[str]]:
    """What is tried after that, the closest first.

    Args:
        depends: Package -> names of what it depends on.
    """
    brought = {name for package, names in depends.items() for name in names if name != package}
    kept = [
        (spec, each) for spec in specs if (each := pinned(spec)) is None or each.package not in {*brought, "python"}
    ]
    python = [each.to(2) for spec in specs if (each := pinned(spec)) is not None and each.package == "python"]
    return [
        [*python, *(f"{each.name}=={each.version}" if each else spec for spec, each in kept)],
        [*python, *(each.to(2) if each else spec for spec, each in kept)],
        [*python, *(each.name if each else spec for spec, each in kept)],
    ]


def given_way(specs: Sequence[str], lock: Lock) -> tuple[str, ...]:
    """What of an export is otherwise in a lock, for a person; nothing if all is as it was."""
    there = {package.name: package for package in lock.packages}
    builds, versions, gone = [], [], []
    for each in filter(None, map(pinned, specs)):
        package = there.get(each.package)
        if package is None:
            gone.append(each.package)
        elif package.version != each.version:
            versions.append(f"{each.package} {each.version} is {package.version}")
        elif each.build and package.build != each.build:
            builds.append(each.package)
    said = []
    if builds or versions or gone:
        said.append("it is an export that cannot be had as it was, so that some of it gave way")
    if builds:
        said.append(f"other builds of the same versions: {_some(builds)}")
    if versions:
        said.append(f"other versions: {_some(versions)}")
    if gone:
        said.append(f"left out, as nothing needs it now: {_some(gone)}")
    return tuple(said)


def _some(names: Iterable[str]) -> str:
    ordered = list(names)
    return ", ".join(ordered[:_SHOWN]) + (f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else "")

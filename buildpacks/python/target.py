"""What a lock is read for: the image's interpreter and platform, as markers and wheel tags name them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from packaging.markers import Marker
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags

from hpcbinder.plan import MACHINES, SUITES, DetectError, Python, marker_environment, show

_OLDEST_GLIBC = {"x86_64": 5}
"""Minor version of the oldest glibc 2 that wheels name for a machine (PEP 600); 17 for all others."""

_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}

_LONGEST_MARKER = 4096


class Target:
    """One interpreter on one platform.

    Attributes:
        python: The interpreter.
        platform: As uv names it: `x86_64-manylinux_2_36`.
        environment: Values of the marker variables (PEP 508), none of them this machine's.
    """

    def __init__(self, python: Python, architecture: str) -> None:
        self.python = python
        machine = MACHINES.get(architecture, architecture)
        glibc = SUITES[python.suite].glibc
        self.platform = f"{machine}-manylinux_{glibc.replace('.', '_')}"
        self.environment = marker_environment(python.full, architecture)
        self._known: dict[tuple[str, frozenset[str], frozenset[str] | None], bool] = {}
        self._tags: dict[tuple[str, str], set[str]] = {}
        for tag in _tags(python.version, machine, int(glibc.split(".")[1])):
            self._tags.setdefault((tag.interpreter, tag.abi), set()).add(tag.platform)

    def holds(
        self, marker: str, where: str, *, extras: Collection[str] = (), groups: Collection[str] | None = None
    ) -> bool:
        """Whether a marker is true here; an empty one is.

        Args:
            marker: Its text.
            where: `file:line` for the message.
            extras: What `extra` is: true for any of them.
            groups: Dependency groups, for a marker of a lock file that speaks of sets (PEP 751); None for any other.

        Raises:
            DetectError: Not a marker, or one of things that cannot be compared.
        """
        if not marker.strip():
            return True
        key = (marker, frozenset(extras), None if groups is None else frozenset(groups))
        if key not in self._known:
            self._known[key] = self._evaluate(marker, where, extras, groups)
        return self._known[key]

    def _evaluate(self, marker: str, where: str, extras: Collection[str], groups: Collection[str] | None) -> bool:
        if len(marker) > _LONGEST_MARKER:
            raise DetectError(f"a marker longer than {_LONGEST_MARKER} characters", where=where)
        try:
            parsed = Marker(marker)
            if groups is not None:
                sets = {"extras": set(extras), "dependency_groups": set(groups)}
                return parsed.evaluate({**self.environment, **sets}, context="lock_file")
            return any(parsed.evaluate({**self.environment, "extra": extra}) for extra in (extras or ("",)))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DetectError(f"'{show(marker)}' is not a marker", where=where) from None

    def runs(self, versions: str, where: str) -> bool:
        """Whether the interpreter is among some versions (`>=3.9,<4`); an empty text is all.

        Raises:
            DetectError: Not a version specifier.
        """
        try:
            return SpecifierSet(versions).contains(self.python.full, prereleases=True)
        except InvalidSpecifier:
            raise DetectError(f"'{show(versions)}' is not a range of versions", where=where) from None

    def fits(self, filename: str) -> bool:
        """Whether a wheel of this name runs here (PEP 425, PEP 600)."""
        stem, dot, kind = filename.rpartition(".")
        parts = stem.split("-")
        if dot + kind != ".whl" or len(parts) not in (5, 6) or len(filename) > 300:
            return False
        pythons, abis, platforms = (part.lower().split(".") for part in parts[-3:])
        # Not as packaging does it, by multiplying out the three: a hostile name would make millions of tags.
        return any(
            python in pythons and abi in abis and not here.isdisjoint(platforms)
            for (python, abi), here in self._tags.items()
        )


def _tags(version: str, machine: str, glibc: int) -> Iterable[Tag]:
    major, minor = (int(part) for part in version.split("."))
    platforms = [f"linux_{machine}"]
    for number in range(glibc, _OLDEST_GLIBC.get(machine, 17) - 1, -1):
        platforms.append(f"manylinux_2_{number}_{machine}")
        if number in _LEGACY:
            platforms.append(f"{_LEGACY[number]}_{machine}")
    # Python 2 on Linux is made with wide characters, here and for wheels.
    abi = f"cp{major}{minor}" + ("mu" if major == 2 else "m" if (major, minor) < (3, 8) else "")
    yield from cpython_tags((major, minor), [abi], platforms)
    yield from compatible_tags((major, minor), f"cp{major}{minor}", platforms)

"""Which of some requirements the index can meet, each for itself: whether a name means anything, before it counts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hpcbinder.lock.messages import without_times, without_wheels
from hpcbinder.lock.platform import platform_of, uv_platform
from hpcbinder.lock.times import UploadTimes
from hpcbinder.lock.uv import Answer, Uv
from hpcbinder.model import Lock, Wanted

_MOST_ASKED = 80
"""Calls of uv for one question."""
_ABSENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s+was\s+not\s+found\s+in\s+the\s+package\s+registry")


def known_to_index(uv: Uv, wanted: Wanted, *, built: bool) -> frozenset[str]:
    """Those of `wanted.requirements` that have a version for the interpreter, of `wanted.as_of` where the index says
    when its files were uploaded.

    Args:
        built: Also what is there, but would have to be built.

    Raises:
        FetchError, BuildError: As `Uv.compile`.
    """
    return _Asking(uv, wanted, built).among(wanted.requirements)


def known_by_name(wanted: Wanted, times: UploadTimes, *, built: bool) -> frozenset[str]:
    """The same for an interpreter that uv does not know: those whose name the index has, at that time.

    Raises:
        FetchError: The index cannot be asked.
    """
    found = set()
    for line in wanted.requirements:
        files = [file for file in times.of(_normal(line)) if built or file.name.endswith(".whl")]
        if any(not wanted.as_of or not file.uploaded or file.uploaded <= wanted.as_of for file in files):
            found.add(line)
    return frozenset(found)


def found_in(lines: Sequence[str], locks: Iterable[Lock], *, built: bool) -> frozenset[str]:
    """Those of some requirements that a lock meets; with `built` also those that it would have built."""
    versions: dict[str, str] = {}
    for lock in locks:
        versions |= dict.fromkeys(lock.unresolved if built else (), "")
        versions |= {package.name: package.version for package in lock.packages}
    return frozenset(line for line in lines if _meets(line, versions.get(_normal(line))))


def _meets(line: str, version: str | None) -> bool:
    from packaging.requirements import Requirement

    if version is None:
        return False
    return not version or Requirement(line).specifier.contains(version, prereleases=True)


class _Asking:
    def __init__(self, uv: Uv, wanted: Wanted, built: bool) -> None:
        self._uv = uv
        self._built = built
        self._wanted = wanted
        self._platform = uv_platform(platform_of(wanted.architecture, wanted.suite))
        self._as_of = wanted.as_of
        self._left = _MOST_ASKED

    def among(self, lines: Sequence[str]) -> frozenset[str]:
        """Ask for all at once, without those that uv says are not there; only where that does not do, for halves."""
        lines = list(lines)
        found: set[str] = set()
        while lines and self._left > 0:
            answer = self._ask(lines)
            if answer.pylock is not None:
                return frozenset(found.union(lines))
            if self._as_of and without_times(answer.message):
                self._as_of = ""
                continue
            absent = {_normal(name) for name in _ABSENT.findall(answer.message)}
            built = {_normal(name) for name in without_wheels(answer.message)}
            rest = [line for line in lines if _normal(line) not in absent | built]
            found |= {line for line in lines if self._built and _normal(line) in built - absent}
            if len(rest) == len(lines):
                if len(lines) == 1:
                    # uv refuses what old packages say of themselves; pip does not.
                    old = self._built and "has invalid metadata" in answer.message
                    return frozenset(found.union(lines if old else ()))
                half = len(lines) // 2
                return frozenset(found | self.among(lines[:half]) | self.among(lines[half:]))
            lines = rest
        return frozenset(found)

    def _ask(self, lines: Sequence[str]) -> Answer:
        self._left -= 1
        return self._uv.compile(
            lines,
            python=self._wanted.python,
            platform=self._platform,
            prereleases=self._wanted.prereleases,
            dependencies=False,
            as_of=self._as_of,
        )


def _normal(line: str) -> str:
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""

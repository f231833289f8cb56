"""What is asked of uv, again and again with more packages left out."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from hpcbinder.errors import DetectError
from hpcbinder.lock.dated import Answered, held_back
from hpcbinder.lock.messages import conflict, must_be_built, without_times, without_wheels
from hpcbinder.lock.platform import uv_platform
from hpcbinder.lock.pylock import read_pylock, timeless, uploads
from hpcbinder.lock.times import UploadTimes
from hpcbinder.lock.uv import Answer, Uv
from hpcbinder.model import Lock, LockedPackage, Wanted
from hpcbinder.progress import Reporter
from hpcbinder.text import one_line

_MOST_BUILT = 40
"""Packages without wheels that are told apart one by one before we give up."""


class Question:
    """What is wanted, in uv's words.

    Args:
        uv: Who is asked.
        platform: See `platform_of`.
        before: Its versions are kept where they fit.
        refresh: Ask the index anew, once.
        reporter: Hears what uv warns of.
        times: Tells what is held back by having no wheels.

    Attributes:
        timeless: Names of packages that the last answer, if it was that nothing fits, left aside, since the index does
            not say when they were uploaded.

    Raises:
        DetectError: What is wanted is not just names, versions and markers.
    """

    timeless: frozenset[str] = frozenset()

    def __init__(
        self,
        uv: Uv,
        wanted: Wanted,
        platform: str,
        before: Lock | None,
        refresh: bool,
        reporter: Reporter,
        times: UploadTimes,
    ) -> None:
        self._uv = uv
        self._wanted = wanted
        self._platform = uv_platform(platform)
        self._requirements = [_plain(line) for line in wanted.requirements]
        self._constraints = [_plain(line) for line in wanted.constraints]
        self._hashed = [_split_hashes(line) for line in (*wanted.requirements, *wanted.constraints)]
        self._preferences = [(package.name, package.version) for package in before.packages] if before else []
        self._refresh = refresh
        self._reporter = reporter
        self._times = times
        self._as_of: str = ""
        self._free: Collection[str] = ()

    def answer(self, as_of: str, free: Collection[str]) -> Answered:
        """The packages that fit, without those that come from elsewhere or have to be built.

        Args:
            as_of: Time (RFC 3339) before which they were uploaded, "" for any.
            free: Names of packages for which it does not count.

        Raises:
            DetectError: There are none that fit.
            FetchError, BuildError: As `Uv.compile`.
        """
        self._as_of, self._free = as_of, free
        built: set[str] = set()
        while True:
            text = self._pylock(built)
            packages, foreign = _with_hashes(read_pylock(text), self._hashed)
            foreign |= held_back(self._wanted, self._times, uploads(text), as_of) - built
            if not foreign:
                return Answered(packages, frozenset(built), timeless(text))
            built |= foreign

    def _pylock(self, built: set[str]) -> str:
        """uv's answer.

        Args:
            built: Names that have to be built; more of them are added.
        """
        while True:
            answer = self._ask(self._requirements, excluded={*self._wanted.elsewhere, *built})
            if answer.pylock is not None:
                for line in answer.message.splitlines():
                    if line.startswith("warning: ") and "is missing an upload date" not in line:
                        self._reporter.phase("plan", one_line(line, 500))
                return answer.pylock
            found = {
                name for name in without_wheels(answer.message) if name not in built and self._no_wheel(answer, name)
            }
            if not found or len(built) > _MOST_BUILT:
                self.timeless = without_times(answer.message)
                raise conflict(answer.message)
            built |= found

    def _ask(self, requirements: Sequence[str], *, excluded: set[str], dependencies: bool = True) -> Answer:
        refresh, self._refresh = self._refresh, False
        return self._uv.compile(
            requirements,
            constraints=self._constraints,
            excluded=sorted(excluded),
            preferences=self._preferences,
            prereleases=self._wanted.prereleases,
            python=self._wanted.python,
            platform=self._platform,
            refresh=refresh,
            dependencies=dependencies,
            as_of=self._as_of,
            free=sorted(self._free),
        )

    def _no_wheel(self, answer: Answer, name: str) -> bool:
        """Nothing of a package that would do has a wheel: not just some version that uv came across."""
        asked = [line for line in self._requirements if _name(line) == name]
        if not asked:
            return must_be_built(answer.message, name)
        alone = self._ask(asked, excluded=set(), dependencies=False)
        return alone.pylock is None and name in without_wheels(alone.message)


def _plain(line: str) -> str:
    """A requirement without its hashes, checked: uv would follow options, run git for its URLs, and read files.

    Raises:
        DetectError: It is not just a name, versions and a marker.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    text, _ = _split_hashes(line)
    try:
        requirement = Requirement(text)
    except (InvalidRequirement, RecursionError):
        requirement = None
    if requirement is None or requirement.url is not None or "$" in text or len(text.splitlines()) != 1:
        raise DetectError(f"'{one_line(text, 200)}' names nothing on the package index")
    return text


def _split_hashes(line: str) -> tuple[str, frozenset[str]]:
    """A requirement, and the `sha256:…` that it says it has."""
    text, *hashes = line.split(" --hash=")
    return text.strip(), frozenset(value.strip() for value in hashes)


def _with_hashes(
    packages: tuple[LockedPackage, ...], lines: Sequence[tuple[str, frozenset[str]]]
) -> tuple[tuple[LockedPackage, ...], set[str]]:
    """Leave only the files whose hashes the requirements name; and the names of packages that have none of these (it
    may be a source's hash)."""
    named: dict[str, frozenset[str]] = {}
    for text, hashes in lines:
        if hashes:
            named[_name(text)] = named.get(_name(text), frozenset()) | hashes
    result, foreign = [], set()
    for package in packages:
        if package.name in named:
            package = replace(package, hashes=tuple(sorted(named[package.name].intersection(package.hashes))))
            if not package.hashes:
                foreign.add(package.name)
        result.append(package)
    return tuple(result), foreign


def _name(line: str) -> str:
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""

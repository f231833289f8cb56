"""Versions as of a time, where uv alone does not find any: what the repository asks for may be younger than that time,
and an index may not say when its files were uploaded."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hpcbinder.errors import DetectError, FetchError, OldMetadataError
from hpcbinder.lock.times import Uploaded, UploadTimes
from hpcbinder.model import LockedPackage, Wanted
from hpcbinder.plan import UNDATED, has_old_metadata, marker_environment
from hpcbinder.text import day_of, one_line

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.version import Version

WHEELS_WITHIN = 7
"""Days after the first file of a version in which its wheels, and what it needs, are there."""

_LONG = 365
"""Days after which a version is of another time."""

_REFUSED = frozenset({"pandas"})
"""Packages with wheels of whose metadata uv refuses those of early versions (pandas before 0.25)."""
_ROUNDS = 8
_NAMES = 300
"""Packages whose pages are read for one question."""


@dataclass(frozen=True)
class Answered:
    """What uv found.

    Attributes:
        packages: Sorted by name.
        built: Names of those that have to be built.
        timeless: Names of packages of which the index does not say when they were uploaded.
    """

    packages: tuple[LockedPackage, ...]
    built: frozenset[str]
    timeless: frozenset[str]


class Asks(Protocol):
    """Who is asked; `Question` is the one there is."""

    timeless: frozenset[str]

    def answer(self, as_of: str, free: Collection[str]) -> Answered: ...


def find_dated(question: Asks, wanted: Wanted, times: UploadTimes) -> tuple[Answered, str, str]:
    """Find versions as of `wanted.as_of`, or what comes closest.

    What is required in a version that is younger moves the time on: the environment was made later than it seems. What
    a constraint pins (a lock's packages, for what is found beside them) is taken whenever it was uploaded. Of packages
    whose times the index does not say any version is taken.

    Returns:
        What was found; the time that counted in the end, "" for none; and what is to be said of it.

    Raises:
        OldMetadataError: What would fit has metadata that uv refuses.
        DetectError: No versions fit together; or a person named the time, and the index cannot be asked for it.
        FetchError: The index cannot be asked.
    """
    pinned = {_normal(each.name) for each in _requirements(wanted, wanted.constraints) if _exact(each)}
    as_of, free, notes = wanted.as_of, UNDATED | pinned, []
    newest: Answered | None = None
    for _ in range(_ROUNDS):
        try:
            found = question.answer(as_of, free)
        except DetectError as conflict:
            if isinstance(conflict, OldMetadataError) and has_old_metadata(".".join(wanted.python.split(".")[:2])):
                raise
            if missing := question.timeless - free:
                newest = newest or question.answer("", ())
                if newest.timeless >= {package.name for package in newest.packages}:
                    return newest, "", _no_times(wanted)
                free |= missing | newest.timeless
                continue
            if as_of == wanted.as_of and (later := _needed(wanted, times)) is not None:
                as_of, note = later
                notes.append(note)
                continue
            return _without(question, wanted, conflict)
        refused = sorted(_REFUSED & found.built)
        if refused and has_old_metadata(".".join(wanted.python.split(".")[:2])):
            # Else an older one yet, of which there is only source, would be built.
            raise OldMetadataError(f"{refused[0]} has invalid metadata")
        if rest := sorted(free & {package.name for package in found.packages} - UNDATED - pinned):
            notes.append(f"in the newest version, as the index does not say when it was uploaded: {', '.join(rest)}")
        return found, as_of, "; ".join(notes)
    return question.answer("", ()), "", _no_times(wanted)


def _no_times(wanted: Wanted) -> str:
    problem = "the package index does not say when its files were uploaded"
    if wanted.as_of_exact:
        raise DetectError(
            f"versions as of {day_of(wanted.as_of)} cannot be told: {problem}",
            hint="--as-of now takes the newest; or name an index in site.pip_index_url that says it, as PyPI does",
        )
    return f"{problem}: the newest versions"


def _without(question: Asks, wanted: Wanted, conflict: DetectError) -> tuple[Answered, str, str]:
    """The newest versions, since of that time none fit together; if those do not either, it is not the time's fault."""
    found = question.answer("", ())
    if wanted.as_of_exact:
        hint = "; ".join(filter(None, (conflict.hint, "--as-of now takes the newest versions")))
        raise DetectError(f"as of {day_of(wanted.as_of)} {conflict.message}", where=conflict.where, hint=hint)
    return found, "", f"as of {day_of(wanted.as_of)} {one_line(conflict.message, 300)}: the newest versions"


def _needed(wanted: Wanted, times: UploadTimes) -> tuple[str, str] | None:
    """A later time from which on all that is required is there, and why; None if that is no reason."""
    latest, because = "", ""
    for requirement in _requirements(wanted, (*wanted.requirements, *wanted.constraints))[:_NAMES]:
        name = _normal(requirement.name)
        if not requirement.specifier or name in wanted.elsewhere:
            continue
        first = min(
            (
                file.uploaded
                for file, version in _versions(times.of(name))
                if file.uploaded and _fits(requirement, version)
            ),
            default="",
        )
        if first > max(latest, wanted.as_of):
            latest, because = first, f"{name}{requirement.specifier}"
    if not latest:
        return None
    try:
        after = datetime.date.fromisoformat(latest[:10]) + datetime.timedelta(days=WHEELS_WITHIN)
    except (ValueError, OverflowError):
        return None
    note = f"moved on from {day_of(wanted.as_of)}, as {one_line(because, 100)} was not there before {latest[:10]}"
    return f"{after}T23:59:59Z", note


def limits(wanted: Wanted, times: UploadTimes) -> tuple[str, ...]:
    """Constraints (`name<=version`) that leave an installer which knows no times only what was there at `wanted.as_of`.

    From what is required one dependency after the other is followed, in the newest version of that time, as far as the
    index has metadata apart from the files. What is required in an exact version, or in versions that are all younger,
    gets no line.

    Raises:
        DetectError: A requirement that is none; or a person named the time and the index does not say any.
        FetchError: The index cannot be asked.
    """
    environment = marker_environment(wanted.python, wanted.architecture)
    exact = {_normal(each.name): each for each in _requirements(wanted, wanted.constraints) if _exact(each)}
    waiting = _requirements(wanted, wanted.requirements)
    lines: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    names: set[str] = set()
    dated = False
    while waiting and len(names) < _NAMES:
        requirement = waiting.pop(0)
        name, extras = _normal(requirement.name), frozenset(map(_normal, requirement.extras))
        if (name, extras) in seen or name in wanted.elsewhere or name in UNDATED:
            continue
        seen.add((name, extras))
        names.add(name)
        requirement = exact.get(name, requirement)
        files = _versions(times.of(name))
        dated = dated or any(file.uploaded for file, _ in files)
        there = [(file, version) for file, version in files if file.uploaded and file.uploaded <= wanted.as_of]
        chosen = _newest(files if _exact(requirement) else there, requirement, wanted.python)
        if chosen is None:
            continue
        if not _exact(requirement):
            lines[name] = f"{name}<={chosen}"
        metadata = next((m for file, version in files if version == chosen and (m := times.metadata(file))), "")
        for line in re.findall(r"^Requires-Dist:[ \t]*(.*)$", metadata, re.MULTILINE | re.IGNORECASE):
            needed = _tolerant(line)
            if needed is not None and _applies(needed, environment, extras):
                waiting.append(needed)
    if wanted.requirements and not dated:
        _no_times(wanted)
    return tuple(lines[name] for name in sorted(lines))


def held_back(wanted: Wanted, times: UploadTimes, chosen: Mapping[str, tuple[str, str]], as_of: str) -> frozenset[str]:
    """Names of what is required and has had no wheels for more than a year: uv, which builds nothing, then goes back to
    the newest version that has one, and so to another time than that of all else (jax for Python 3.8: 0.1.23 of 2019).

    What has wheels for other platforms is left alone: it is compiled, and no more likely to be built than to be missed.

    Args:
        chosen: Name -> version that was found, and when its first file was uploaded ("" where the index does not say).
        as_of: Time (RFC 3339) before which versions are taken, "" for any.
    """
    requirements = _requirements(wanted, wanted.requirements)
    exact = {_normal(each.name) for each in (*requirements, *_requirements(wanted, wanted.constraints)) if _exact(each)}
    end = as_of or f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
    found = set()
    for requirement in requirements[:_NAMES]:
        name = _normal(requirement.name)
        version, uploaded = chosen.get(name, ("", ""))
        if not uploaded or name in exact or _days(uploaded, end) <= _LONG:
            continue
        try:
            files = _versions(times.of(name))
        except FetchError:
            continue
        there = [(file, each) for file, each in files if file.uploaded and file.uploaded <= end]
        newest = _newest(there, requirement, wanted.python)
        of_newest = [file for file, each in there if each == newest]
        if newest is None or f"{newest}" == version or any(file.name.endswith(".whl") for file in of_newest):
            continue
        if _days(uploaded, min(file.uploaded for file in of_newest)) > _LONG:
            found.add(name)
    return frozenset(found)


def _days(earlier: str, later: str) -> int:
    try:
        return (datetime.date.fromisoformat(later[:10]) - datetime.date.fromisoformat(earlier[:10])).days
    except ValueError:
        return 0


def _newest(files: Iterable[tuple[Uploaded, Version]], requirement: Requirement, python: str) -> Version | None:
    fitting = [
        version
        for file, version in files
        if _fits(requirement, version)
        and (not file.yanked or _exact(requirement))
        and _runs(file.requires_python, python)
    ]
    return max((v for v in fitting if not v.is_prerelease), default=max(fitting, default=None))


def _fits(requirement: Requirement, version: Version) -> bool:
    try:
        return requirement.specifier.contains(version, prereleases=True)
    except ValueError:  # a number of thousands of digits
        return False


def _runs(requires_python: str, python: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return not requires_python or SpecifierSet(requires_python).contains(python)
    except (InvalidSpecifier, ValueError):  # ValueError: a number of thousands of digits
        return True


def _versions(files: Iterable[Uploaded]) -> list[tuple[Uploaded, Version]]:
    """Files with their versions, without what has a name that tells none (old sources, installers)."""
    from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
    from packaging.version import InvalidVersion

    found = []
    for file in files:
        try:
            if file.name.endswith(".whl"):
                found.append((file, parse_wheel_filename(file.name)[1]))
            else:
                found.append((file, parse_sdist_filename(file.name)[1]))
        except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion, ValueError):
            continue
    return found


def _requirements(wanted: Wanted, lines: Sequence[str]) -> list[Requirement]:
    from packaging.requirements import InvalidRequirement, Requirement

    environment = marker_environment(wanted.python, wanted.architecture)
    found = []
    for line in lines:
        text = line.split(" --hash=")[0].strip()
        try:
            requirement = Requirement(text)
        except (InvalidRequirement, RecursionError):
            raise DetectError(f"'{one_line(text, 200)}' names nothing on the package index") from None
        if requirement.url is None and _applies(requirement, environment, frozenset()):
            found.append(requirement)
    return found


def _tolerant(line: str) -> Requirement | None:
    """What a package depends on; of old metadata, whose versions follow no rule, only the name."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(line)
    except (InvalidRequirement, RecursionError):
        pass
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    return Requirement(match[0]) if match and ";" not in line and not match[0].endswith(("-", ".", "_")) else None


def _applies(requirement: Requirement, environment: dict[str, str], extras: Collection[str]) -> bool:
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName

    marker = requirement.marker
    try:
        return marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras))
    except (UndefinedComparison, UndefinedEnvironmentName, ValueError):
        return False


def _exact(requirement: Requirement) -> bool:
    return any(each.operator in ("==", "===") and not each.version.endswith(".*") for each in requirement.specifier)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

"""Which Python.

What names a version counts first: runtime.txt, then .python-version, then the Pipfile or its lock. What names a range
(the projects to install, and a lock) must allow it, or chooses among what there is, what the site prefers first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcbinder.plan import DetectError, Draft, Python, RegistryError, Repo, served, show

from .pipfile import pipfile_requires
from .poetry import Constraint
from .project import Project

_RUNTIME = re.compile(r"python-(?P<version>[0-9]+(\.[0-9]+){0,2})\Z")
_PYENV = re.compile(r"(cpython[-@]|python[-@]?)?(?P<version>[0-9]+(\.[0-9]+){0,2})(-dev)?\Z")
"""pyenv's names of CPython, and uv's requests for it (`cpython-3.12`, `cpython@3.12`)."""


@dataclass(frozen=True)
class Asked:
    """A file that names a version.

    Attributes:
        path: The file.
        where: `file:line`.
        full: `X.Y` or `X.Y.Z`, as far as it says.
        binding: Its version or none: it may not be left aside although a range of the project allows another.
    """

    path: str
    where: str
    full: str
    binding: bool = True

    @property
    def version(self) -> str:
        """`X.Y`."""
        return ".".join(self.full.split(".")[:2])


@dataclass(frozen=True)
class Range:
    """A file that says which versions will do.

    Attributes:
        versions: These.
        where: `file:line`.
    """

    versions: Constraint
    where: str


def choose_python(
    repo: Repo,
    draft: Draft,
    projects: Sequence[Project],
    *,
    pipenv: tuple[str, Mapping[str, object]] | None = None,
    lock: Range | None = None,
) -> str:
    """Choose the interpreter that fits.

    Args:
        projects: Those whose `requires-python` counts.
        pipenv: The Pipfile, or the `_meta` of its lock, that is used: path and content.
        lock: What the lock that is used was made for.

    Returns:
        What a person should know of the version that the Pipfile asks for, or "".

    Raises:
        DetectError: None has it, or two files contradict each other.
    """
    ranges = [Range(p.requires_python, p.requires_python_where) for p in projects if p.requires_python is not None]
    ranges += [lock] if lock else []
    asked = _asked(repo, draft, ranges, pipenv)
    candidates = list(draft.pythons)
    if asked is not None:
        candidates = _having(asked, candidates)
    for number, wanted in enumerate(ranges):
        fits = [python for python in candidates if wanted.versions.allows(python.full)]
        if not fits:
            other = f"but {show(asked.path)} asks for {asked.full}" if asked else "which no base has"
            if not asked and number and len(candidates) < len(draft.pythons):
                other = "but another project of the repository needs another"
            raise DetectError(
                f"needs Python {show(wanted.versions.text)}, {other}",
                where=wanted.where,
                hint=f"there is Python {served(draft.pythons)}",
            )
        candidates = fits
    try:
        draft.choose_python(candidates[0])
    except RegistryError as error:
        others = _elsewhere(draft, ranges) if asked is not None and not asked.binding else []
        if not others or asked is None:
            raise
        draft.choose_python(others[0])
        reason = f"Python {asked.full} cannot be had ({error.message}); {ranges[0].where} allows {others[0].version}"
        draft.unused(asked.path, reason)
        asked = None
    if asked is not None and (pipenv is None or asked.path != pipenv[0]):
        note = f"Python {asked.version}"
        if asked.full not in (asked.version, draft.python.full):
            note += f": the base has its own patch release, not {asked.full}"
        draft.used(asked.path, note)
    other_version = _pipenv(pipenv)
    if asked is None or other_version is None or asked.version == other_version.version:
        return ""
    return f"asks for Python {other_version.full}, but {show(asked.path)}, which counts more, for {asked.full}"


def _asked(
    repo: Repo, draft: Draft, ranges: Sequence[Range], pipenv: tuple[str, Mapping[str, object]] | None
) -> Asked | None:
    """The most important file that names a version; what is made of each is said."""
    found: Asked | None = None
    for asked in (_runtime(repo, draft), _python_version(repo, draft), _pipenv(pipenv)):
        if asked is None:
            continue
        if found is not None:
            if asked.path == ".python-version" and asked.version != found.version:
                draft.unused(asked.path, f"{show(found.path)}, which counts more, asks for Python {found.full}")
            elif asked.path == ".python-version":
                draft.used(asked.path, f"Python {found.version}, as {show(found.path)} says")
            continue
        there = _having(asked, draft.pythons)
        if not there:
            allowed = [p for p in draft.pythons if all(wanted.versions.allows(p.full) for wanted in ranges)]
            if not asked.binding and ranges and allowed:
                reason = (
                    f"asks for Python {asked.full}, which no base has; {ranges[0].where} allows {allowed[0].version}"
                )
                draft.unused(asked.path, reason)
                continue
            raise DetectError(
                f"asks for Python {asked.version}, which no base has",
                where=asked.where,
                hint=f"there is Python {served(draft.pythons)}; write one of them if the code runs with it",
            )
        found = asked
    return found


def _elsewhere(draft: Draft, ranges: Sequence[Range]) -> list[Python]:
    """The interpreters that the ranges allow and no registry has to be asked for; none without a range."""
    here = [python for python in draft.pythons if python.origin != "image"]
    return [python for python in here if ranges and all(wanted.versions.allows(python.full) for wanted in ranges)]


def _having(asked: Asked, pythons: Sequence[Python]) -> list[Python]:
    """The interpreters of the version asked for, those of just its patch release first."""
    same = [python for python in pythons if python.version == asked.version]
    return sorted(same, key=lambda python: python.full != asked.full)


def _runtime(repo: Repo, draft: Draft) -> Asked | None:
    path = repo.config("runtime.txt")
    if path is None:
        return None
    text = repo.read_text(path).strip()
    if not text:
        draft.unused(path, "is empty")
        return None
    match = _RUNTIME.match(text)
    if match is None:
        if re.match(r"[a-z]+-", text) and not text.startswith("python"):
            draft.unused(path, "is not about Python")
            return None
        raise DetectError(
            f"'{show(text.partition(chr(10))[0])}' is no version of Python",
            where=f"{show(path)}:1",
            hint="write python-X.Y, such as python-3.11",
        )
    return _named(draft, path, f"{show(path)}:1", match["version"])


def _python_version(repo: Repo, draft: Draft) -> Asked | None:
    """`.python-version` of pyenv and uv: the first line that says something counts, as pyenv has it for `python`."""
    path = repo.root_config(".python-version")
    if path is None:
        return None
    for number, line in enumerate(repo.read_text(path).split("\n"), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        match = _PYENV.match(words[0])
        if match is None:
            draft.unused(path, f"'{show(words[0])}' is the name of no CPython")
            return None
        asked = _named(draft, path, f"{show(path)}:{number}", match["version"])
        return asked and Asked(asked.path, asked.where, asked.full, binding=False)
    draft.unused(path, "is empty")
    return None


def _named(draft: Draft, path: str, where: str, version: str) -> Asked | None:
    if "." in version:
        return Asked(path, where, version)
    if version != "3":
        raise DetectError(
            f"asks for Python {version}, which no base has",
            where=where,
            hint=f"there is Python {served(draft.pythons)}",
        )
    draft.used(path, "any Python 3")
    return None


def _pipenv(pipenv: tuple[str, Mapping[str, object]] | None) -> Asked | None:
    if pipenv is None:
        return None
    path, values = pipenv
    _, version = pipfile_requires(values)
    # As repo2docker: what is no plain version (`>=3.8`) says nothing.
    match = re.match(r"[0-9]+\.[0-9]+(\.[0-9]+)?\Z", version)
    return Asked(path, show(path), version) if match else None

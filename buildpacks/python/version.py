"""Which Python.

What names a version counts first: runtime.txt, then the Pipfile or its lock, then .python-version. What names a range
(the projects to install, and a lock) must allow it, or chooses among what there is, what the site prefers first. Where
nothing names a version, what there is besides tells (`evidence`), and gives way where nothing fits together with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hpcbinder.plan import (
    PYTHON_2,
    DetectError,
    Draft,
    Lock,
    OldMetadataError,
    Python,
    RegistryError,
    Repo,
    served,
    show,
)

from .evidence import Hint, Span, installable, preferred, tell, written_for
from .pipfile import pipfile_requires
from .poetry import Constraint
from .project import Project

_RUNTIME = re.compile(r"python-(?P<version>[0-9]+(\.[0-9]+){0,2})\Z")
_PYENV = re.compile(r"(cpython[-@]|python[-@]?)?(?P<version>[0-9]+(\.[0-9]+){0,2})(-dev)?\Z")
"""pyenv's names of CPython, and uv's requests for it (`cpython-3.12`, `cpython@3.12`)."""
_MOST_SAID = 300
"""Characters of an error that are told beside a file."""


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


@dataclass(frozen=True)
class Likely:
    """A Python that no file names: what speaks for it, and what to take instead where nothing fits together with it.

    Attributes:
        python: The one that was chosen.
        hint: What notebooks and scripts tell.
        spans, path: What pins tell, and their file.
        decided: What decided (`preferred`).
        instead: Why the hint's Python was not taken, if it was not.
        problem: Why what was wanted most could not be had, "" if it was.
        others: The interpreters in whose favour it gives way, in turn: newer ones, the nearest first, and the one there
            would be without the evidence.
    """

    python: Python
    hint: Hint | None
    spans: tuple[Span, ...]
    path: str
    decided: str
    instead: str
    problem: str
    others: tuple[Python, ...]

    def tell(self, draft: Draft, refused: str = "") -> None:
        """Say what the evidence was, and what became of it.

        Args:
            refused: Why it gave way to the Python that is chosen now, "" if it did not.
        """
        gave_way = f"with Python {self.python.version} {_short(refused)}" if refused else ""
        tell(draft, self.hint, self.spans, self.path, self.decided, gave_way or self.instead, gave_way or self.problem)
        if self.decided == "date" and not self.problem:
            words = f"Python {self.python.version}, as versions are of {draft.as_of[:10]}"
            if gave_way:
                draft.unused("(date)", f"{words}; {gave_way}")
            else:
                draft.used("(date)", words)


def choose_python(
    repo: Repo,
    draft: Draft,
    projects: Sequence[Project],
    *,
    pipenv: tuple[str, Mapping[str, object]] | None = None,
    lock: Range | None = None,
    pins: tuple[str, Sequence[str]] = ("", ()),
) -> tuple[str, Likely | None]:
    """Choose the interpreter that fits.

    Args:
        projects: Those whose `requires-python` counts.
        pins: A file of requirements, and its lines.
        pipenv: The Pipfile, or the `_meta` of its lock, that is used: path and content.
        lock: What the lock that is used was made for.

    Returns:
        What a person should know of the version that the Pipfile asks for, or ""; and, where nothing names a version,
        why this one was taken, which is still to be told.

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
    hint = written_for(repo)
    if asked is None:
        return "", _weigh(draft, candidates, hint, pins, ranges)
    if hint is not None and hint.version != asked.version:
        tell(draft, hint, (), "", "", f"{show(asked.path)}, which counts more, asks for Python {asked.full}")
    try:
        _first(draft, candidates)
    except DetectError as error:
        raise DetectError(error.message, where=error.where or asked.where, hint=error.hint) from None
    except RegistryError as error:
        others = _elsewhere(draft, ranges) if not asked.binding else []
        if not others:
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
        return "", None
    return f"asks for Python {other_version.full}, but {show(asked.path)}, which counts more, for {asked.full}", None


def settle(draft: Draft, likely: Likely | None, find: Callable[[], Lock | None]) -> Lock | None:
    """What `find` has for the chosen Python; where no versions fit together, and that Python is likely and no more, for
    the next one for which some do.

    Raises:
        DetectError: There are none; of the last one, which the evidence has no part in.
    """
    if likely is None:
        return find()
    failed: DetectError | None = None
    refused, silent = "", False
    for python in (draft.python, *likely.others):
        if failed is not None:
            if silent and python.origin == "image":
                continue
            try:
                draft.choose_python(python)
            except (DetectError, RegistryError) as error:
                silent = silent or isinstance(error, RegistryError)
                continue
        try:
            lock = find()
        except OldMetadataError:
            likely.tell(draft, refused)
            raise
        except DetectError as error:
            failed, refused = error, refused or error.message
        else:
            likely.tell(draft, refused)
            return lock
    assert failed is not None
    raise failed


def _weigh(
    draft: Draft,
    candidates: Sequence[Python],
    hint: Hint | None,
    pins: tuple[str, Sequence[str]],
    ranges: Sequence[Range],
) -> Likely:
    """Choose where nothing names a version: as the weaker evidence has it, as far as it can be had."""
    path, lines = pins
    spans = installable(draft, lines)
    wanted, decided = preferred(candidates, hint, spans, draft.as_of)
    problem = _first(draft, wanted)
    chosen = draft.python.version
    if hint is not None and hint.version not in {python.version for python in candidates}:
        there = hint.version in {python.version for python in draft.pythons}
        where = "bases.pythons and bases.older say where Pythons come from"
        instead = f"{ranges[0].where} does not allow it" if there and ranges else f"no base has it ({where})"
    elif problem:
        instead = f"it cannot be had: {problem}"
    elif decided == "pins":
        instead = f"{show(path)}, which counts more, needs {chosen}"
    else:
        instead = f"Python {chosen} had wheels by then, and no registry has to be asked for it"
    others = _others(draft.python, wanted) if decided in ("notebooks", "date") else ()
    return Likely(draft.python, hint, spans, path, decided, instead, problem, others)


def _others(chosen: Python, wanted: Sequence[Python]) -> tuple[Python, ...]:
    """What takes the place of a Python that is only likely: what its time's packages have no files for any more, a
    newer one has, not an older one."""
    first = {python.version: python for python in reversed(wanted) if python.version not in (chosen.version, PYTHON_2)}
    newer = [python for python in first.values() if _number(python) > _number(chosen)]
    usual = [python for python in wanted[-1:] if python.version in first and python not in newer]
    return (*sorted(newer, key=_number), *usual)


def _short(text: str) -> str:
    return text if len(text) <= _MOST_SAID else f"{text[:_MOST_SAID]}…"


def _number(python: Python) -> tuple[int, ...]:
    return tuple(map(int, python.version.split(".")))


def _first(draft: Draft, candidates: Sequence[Python]) -> str:
    """Take the first interpreter that can be had; a registry that cannot be asked once is not asked again.

    Returns:
        Why an earlier one could not be had, "" if it was the first.

    Raises:
        DetectError, RegistryError: None can be had; of the first one.
    """
    first: DetectError | RegistryError | None = None
    for python in candidates:
        if isinstance(first, RegistryError) and python.origin == "image":
            continue
        try:
            draft.choose_python(python)
        except (DetectError, RegistryError) as error:
            first = first or error
        else:
            return first.message if first else ""
    assert first is not None
    raise first


def _asked(
    repo: Repo, draft: Draft, ranges: Sequence[Range], pipenv: tuple[str, Mapping[str, object]] | None
) -> Asked | None:
    """The most important file that names a version; what is made of each is said."""
    found: Asked | None = None
    for asked in (_runtime(repo, draft), _pipenv(pipenv), _python_version(repo, draft)):
        if asked is None:
            continue
        if found is not None:
            if asked.path == ".python-version" and asked.version != found.version:
                draft.unused(asked.path, f"{show(found.path)}, which counts more, asks for Python {found.full}")
            elif asked.path == ".python-version":
                draft.used(asked.path, f"Python {found.version}, as {show(found.path)} says")
            continue
        there = _having(asked, draft.pythons)
        allowed = [p for p in draft.pythons if all(wanted.versions.allows(p.full) for wanted in ranges)]
        if not asked.binding and ranges and allowed and not any(python in allowed for python in there):
            but = "" if there else ", which no base has"
            reason = f"asks for Python {asked.full}{but}; {ranges[0].where} allows {allowed[0].version}"
            draft.unused(asked.path, reason)
            continue
        if not there:
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
    text = repo.read_text(path, utf16=True).strip()
    if not text:
        draft.unused(path, "is empty")
        return None
    match = _RUNTIME.match(text)
    if match is None:
        if re.match(r"[a-z]+-", text) and not text.startswith("python"):
            if not text.startswith("r-"):  # the R pack says what it makes of it
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
    for number, line in enumerate(repo.read_text(path, utf16=True).split("\n"), start=1):
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
    if version == "2":
        return Asked(path, where, PYTHON_2)
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

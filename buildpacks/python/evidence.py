"""What tells of the Python that a repository was written for, without asking for it.

Strongest first: pins of packages whose wheels are for certain Pythons only; the version that notebooks were last run
with; Python 2's syntax; the date that unlocked versions are of. None of it can be a reason to refuse: it moves the
choice among the interpreters that there are.
"""

from __future__ import annotations

import ast
import datetime
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from hpcbinder.plan import (
    PYTHON_2,
    RELEASED,
    WHEELS_AFTER,
    Draft,
    Python,
    Repo,
    parse_toml,
    plain_python,
    show,
    too_old,
)

_VERSION = re.compile(r"([23])\.([0-9]{1,2})(?![0-9])")
_OLD = re.compile(
    r"^[ \t]*(?:print[ \t]+[^\s=(.,)\]]|exec[ \t]+['\"\w]|raise[ \t]+\w+[ \t]*,"
    r"|except[ \t]+[\w.]+[ \t]*,[ \t]*\w+[ \t]*:)",
    re.M,
)
"""What Python 2 alone takes, as far as a glance tells; then it is looked at whether it parses."""
_MOST_PARSED = 4 << 20
"""Characters of code that are parsed."""


@dataclass(frozen=True)
class Hint:
    """The Python that files tell of.

    Attributes:
        file: One of them.
        version: `X.Y`.
        reason: How it is told, for a person.
    """

    file: str
    version: str
    reason: str


@dataclass(frozen=True)
class Span:
    """The Pythons for which a pinned package has wheels.

    Attributes:
        pin: `numpy==1.16.4`.
        oldest, newest: `X.Y`.
    """

    pin: str
    oldest: str
    newest: str

    def has(self, version: str) -> bool:
        """Whether they are for a Python `X.Y`: those that are for 2.7 are not for every one after it."""
        return version == self.oldest or max(_number(self.oldest), (3, 5)) <= _number(version) <= _number(self.newest)


def written_for(repo: Repo) -> Hint | None:
    """The Python that most notebooks were last run with; that of their syntax where they do not say, and the scripts'
    where there are none."""
    said: dict[str, list[str]] = {}
    silent = []
    for notebook in repo.code.notebooks:
        if notebook.language not in ("python", ""):
            continue
        match = _VERSION.match(notebook.version)
        if match is not None and not too_old(match[0]):
            said.setdefault(match[0], []).append(notebook.path)
        elif notebook.kernel == "python2" or (match is not None and match[1] == "2"):
            said.setdefault(PYTHON_2, []).append(notebook.path)
        elif match is None:
            silent.append(notebook)
    if said:
        counts = Counter({version: len(paths) for version, paths in said.items()})
        version = max(counts, key=lambda each: (counts[each], _number(each)))
        total = sum(counts.values())
        many = "" if total == 1 else f", like {counts[version]} of {total} notebooks" if len(counts) > 1 else ""
        more = f", like {total - 1} more" if total > 1 and len(counts) == 1 else many
        return Hint(said[version][0], version, f"last run with Python {version}{more}")
    room = _MOST_PARSED
    for path, source in (
        *((notebook.path, plain_python(cell.source)) for notebook in silent for cell in notebook.cells),
        *((script.path, script.text) for script in (repo.code.scripts if not silent else ())),
    ):
        if len(source) <= room and _OLD.search(source):
            room -= len(source)
            if not _parses(source):
                return Hint(path, PYTHON_2, "has the syntax of Python 2")
    return None


def installable(draft: Draft, lines: Iterable[str]) -> tuple[Span, ...]:
    """For which Pythons there are wheels of what is pinned, as far as `wheels.toml` knows the package."""
    table = parse_toml(draft.script("wheels.toml"), "wheels.toml")
    spans = []
    for line in lines:
        try:
            wanted = Requirement(line.partition(" --hash")[0])
            exact = [each.version for each in wanted.specifier if each.operator in ("==", "===")]
            version = Version(exact[0]) if len(exact) == 1 and "*" not in exact[0] else None
        except (InvalidRequirement, InvalidVersion, ValueError):  # ValueError: a number of thousands of digits
            continue
        rows = table.get(canonicalize_name(wanted.name), {})
        before = [first for first in rows if version is not None and Version(first) <= version]
        if before and (wanted.marker is None):
            spans.append(Span(f"{wanted.name}=={version}", *rows[before[-1]]))
    return tuple(spans)


def preferred(
    candidates: Sequence[Python], hint: Hint | None, spans: Sequence[Span], date: str
) -> tuple[list[Python], str]:
    """The interpreters that the evidence speaks for, the most fitting first; the last one is what there would be
    without it, or what comes nearest to that.

    Args:
        candidates: What can be had, the most wanted first.
        date: Of which unlocked versions are, "" for today.

    Returns:
        They, and what decided: `pins`, `notebooks`, `date`, or "" for nothing.
    """
    fits = [python for python in candidates if all(span.has(python.version) for span in spans)]
    # What the index has no more wheels for is of another time: with 2.7 only where nothing newer will do.
    pool = [python for python in fits if python.version != PYTHON_2] or fits or list(candidates)
    default, why = [candidates[0]], ""
    if fits and candidates[0].version not in {python.version for python in fits}:
        default, why = [*sorted(pool, key=_newest_here), candidates[0]], "pins"
    if hint is not None:
        exact = sorted((p for p in fits or candidates if p.version == hint.version), key=_asks_a_registry)
        if hint.version == PYTHON_2:
            return [*exact, *default], "notebooks" if exact else why
        too_new = not _was_out(default[0], date) and _number(hint.version) < _number(default[0].version)
        near = [p for p in pool if p.version != PYTHON_2 and not _is_run(p)] if too_new and not why else []
        near.sort(key=lambda p: _distance(p, hint.version))
        exact = exact if why else [python for python in exact if not _is_run(python)]
        if near or (exact and (why or not _asks_a_registry(exact[0]))):
            return [*exact, *near, *default], "notebooks"
        return default, why
    if not why and not _was_out(default[0], date):
        # Of a date alone nobody has an engine, which what is a registry's takes as well.
        here = [python for python in pool if not (_is_run(python) or _asks_a_registry(python))]
        three = [python for python in here if python.version != PYTHON_2]
        out = sorted((p for p in three if _was_out(p, date)), key=_newest_here)
        rest = sorted(
            (p for p in three if not _was_out(p, date)), key=lambda p: (_number(p.version), _asks_a_registry(p))
        )
        return [*out, *rest, *default], "date"
    return default, why


def tell(
    draft: Draft, hint: Hint | None, spans: Sequence[Span], path: str, decided: str, instead: str, problem: str = ""
) -> None:
    """Say what the evidence was, and what was made of it.

    Args:
        path: The file with the pins.
        decided: What decided (`preferred`), "" for nothing of it.
        instead: What did, or why the notebooks' Python could not be taken.
        problem: Why what was wanted most could not be had.
    """
    chosen = draft.python.version
    unmet = [span for span in spans if not span.has(chosen)]
    if decided == "pins" and not unmet:
        span = min(spans, key=lambda each: _number(each.newest))
        draft.used(path, f"Python {chosen}: wheels of {show(span.pin)} are for {_words(span)}")
    elif unmet:
        span = unmet[0]
        draft.unused(
            path, f"wheels of {show(span.pin)} are for Python {_words(span)}; {problem or 'no base has one of these'}"
        )
    if hint is not None:
        if hint.version == chosen:
            draft.used(hint.file, hint.reason)
        else:
            draft.unused(hint.file, f"{hint.reason}; {instead}")


def _words(span: Span) -> str:
    return span.newest if span.oldest == span.newest else f"{span.oldest} to {span.newest}"


def _was_out(python: Python, date: str) -> bool:
    """Whether there were wheels for it at a date; always true today."""
    released = RELEASED.get(python.version)
    if not date or released is None:
        return True
    return f"{datetime.date.fromisoformat(released) + datetime.timedelta(days=WHEELS_AFTER)}" <= date


def _is_run(python: Python) -> bool:
    """Whether an engine has to build an image with it. Without it there may be an image where there is none, so that
    what only makes another Python likely is no reason to want it."""
    return python.origin == "packages"


def _asks_a_registry(python: Python) -> bool:
    return python.origin == "image"


def _newest_here(python: Python) -> tuple[int, int, bool]:
    """Newest first, and what needs no registry before what does."""
    major, minor = _number(python.version)
    return -major, -minor, _asks_a_registry(python)


def _distance(python: Python, version: str) -> tuple[bool, int, bool]:
    """What is newer before what is older, each the nearer the better."""
    minor, wanted = _number(python.version)[1], _number(version)[1]
    return minor < wanted, abs(minor - wanted), _asks_a_registry(python)


def _number(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _parses(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True

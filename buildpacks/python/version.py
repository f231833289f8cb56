"""Which Python: runtime.txt first, then what the projects say they can run on, else the suite the site prefers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpcbinder.plan import DetectError, Draft, Repo, served, show

from .project import Project

_RUNTIME = re.compile(r"python-(?P<version>[0-9]+(\.[0-9]+){0,2})\Z")


def choose_python(repo: Repo, draft: Draft, projects: Sequence[Project]) -> None:
    """Choose the interpreter that fits.

    Raises:
        DetectError: None has it, or two files contradict each other.
    """
    asked = _runtime(repo, draft)
    candidates = list(draft.pythons)
    if asked is not None:
        path, version = asked
        candidates = [python for python in candidates if python.version == version]
        if not candidates:
            raise DetectError(
                f"asks for Python {version}, which no base has",
                where=f"{path}:1",
                hint=f"there is Python {served(draft.pythons)}; write one of them if the code runs with it",
            )
    for project in projects:
        if project.requires_python is None:
            continue
        fits = [python for python in candidates if project.requires_python.contains(python.full, prereleases=True)]
        if not fits:
            other = f"but {asked[0]} asks for {asked[1]}" if asked else "which no base has"
            if not asked and len(candidates) < len(draft.pythons):
                other = "but another project of the repository needs another"
            raise DetectError(
                f"needs Python {project.requires_python}, {other}",
                where=project.requires_python_where,
                hint=f"there is Python {served(draft.pythons)}",
            )
        candidates = fits
    draft.choose_python(candidates[0])


def _runtime(repo: Repo, draft: Draft) -> tuple[str, str] | None:
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
    parts = match["version"].split(".")
    if len(parts) == 1:
        if parts[0] != "3":
            raise DetectError(
                f"asks for Python {parts[0]}, which no base has",
                where=f"{show(path)}:1",
                hint=f"there is Python {served(draft.pythons)}",
            )
        draft.used(path, f"any Python 3: {draft.python.version}")
        return None
    version = ".".join(parts[:2])
    if len(parts) == 3:
        draft.used(path, f"Python {version}: the base has its own patch release, not {match['version']}")
    else:
        draft.used(path, f"Python {version}")
    return show(path), version

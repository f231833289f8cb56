"""What a repository's own projects say of packages, where no other file does, and what its notebooks miss there."""

from __future__ import annotations

import configparser
import posixpath
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement

from hpcbinder.plan import Described, Draft, OldMetadataError, Repo

from .by_pip import by_pip
from .project import Project
from .requirements import Requirements, requirement_name

_LONGEST = 200
"""Characters of a requirement."""


def add_missing(
    repo: Repo, draft: Draft, projects: Sequence[Project], wanted: Requirements, always: Collection[str]
) -> list[str]:
    """Add what notebooks import and the projects do not bring.

    Args:
        wanted: What the projects depend on, as far as that is known.
        always: Names of what is there in any case.

    Returns:
        What is not added, as it has to be installed together with a project of which only its build tells what it
        depends on.
    """
    missing = [found.requirement for found in draft.inferred_python(_describe(repo, draft, projects, wanted, always))]
    if not by_pip(draft) and any(project.dependencies is None for project in projects):
        return missing
    wanted.add(missing, ())
    return []


def _describe(
    repo: Repo, draft: Draft, projects: Sequence[Project], wanted: Requirements, always: Collection[str]
) -> Described:
    own = {project.name for project in projects if project.name}
    told = not by_pip(draft) and all(project.dependencies is not None for project in projects)

    def resolve(more: Sequence[str]) -> frozenset[str] | None:
        if not told or wanted.has_indexes or wanted.builds_all:
            return None
        try:
            lock = draft.resolve(
                [*wanted.from_index, *more, *always],
                constraints=wanted.plain_constraints,
                elsewhere={*wanted.elsewhere, *own},
                prereleases=wanted.prereleases,
                keep=False,
            )
        except OldMetadataError:
            return None
        return None if lock is None else frozenset({*(package.name for package in lock.packages), *lock.unresolved})

    optional: dict[str, str] = {}
    for project in projects:
        for line in _optional(repo, project):
            _add(optional, line, draft.python.full)
    names = {*own, *filter(None, map(requirement_name, wanted.lines)), *always}
    return Described(frozenset(names), optional, resolve)


def _optional(repo: Repo, project: Project) -> Iterator[str]:
    """The lines of its extras and dependency groups (PEP 735), as far as its files have them written out."""
    path = posixpath.join(project.local.path, "pyproject.toml")
    if path in project.files:
        values = repo.read_toml(path)
        table = values.get("project")
        for groups in (
            table.get("optional-dependencies") if isinstance(table, dict) else None,
            values.get("dependency-groups"),
        ):
            for lines in groups.values() if isinstance(groups, dict) else ():
                yield from _texts(lines)
    path = posixpath.join(project.local.path, "setup.cfg")
    if not project.local.is_archive and repo.tree.kind(path) in ("file", "symlink"):
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read_string(repo.read_text(path))
            for _, text in parser.items("options.extras_require"):
                yield from text.splitlines()
        except configparser.Error:
            return


def _texts(lines: Any) -> list[str]:
    return [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []


def _add(found: dict[str, str], line: str, python: str) -> None:
    """Keep a line that holds for the interpreter; of several for one package one that bounds it."""
    try:
        requirement = Requirement(line.strip())
        here = {"python_version": ".".join(python.split(".")[:2]), "python_full_version": python, "extra": ""}
        if requirement.url or (requirement.marker is not None and not requirement.marker.evaluate(here)):
            return
    except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName, RecursionError):
        return
    requirement.marker = None
    text = str(requirement)
    if len(text) > _LONGEST or not text.isprintable():
        return
    name = re.sub(r"[-_.]+", "-", requirement.name).lower()
    if name not in found or (requirement.specifier and not Requirement(found[name]).specifier):
        found[name] = text

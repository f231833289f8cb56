"""What poetry's own tables of pyproject.toml ask for, as PEP 508 has it.

The rules are poetry-core's: `constraints/version/parser.py` for versions (`^1.2`, `~1.2`, `1.*`), `factory.py` for the
tables of a dependency. Groups are those that `poetry install` takes, but for `dev`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from hpcbinder.plan import DetectError, show

DEV = "dev"
"""The group that is for who works on the project, not for who runs it."""

_LONGEST = 1000
_PART = re.compile(r"(?P<op>\^|~=|~|!=|>=|<=|==|=|>|<)?\s*v?(?P<version>[0-9][0-9A-Za-z.+!*_-]*|\*)\Z")
_WILD = re.compile(r"(?P<release>[0-9]+(\.[0-9]+)*)(\.[xX*])+\Z")


@dataclass(frozen=True)
class Constraint:
    """Which versions are wanted: those of any of the alternatives.

    Attributes:
        text: As written.
        alternatives: Each one in PEP 440's terms.
    """

    text: str
    alternatives: tuple[SpecifierSet, ...]

    def allows(self, version: str) -> bool:
        """Whether a version is among them."""
        return any(specifiers.contains(version, prereleases=True) for specifiers in self.alternatives)


@dataclass(frozen=True)
class Dependency:
    """One dependency as poetry's tables have it.

    Attributes:
        name: As written.
        versions: The constraint.
        extras: Extras of it.
        markers: PEP 508 markers, all of which must hold.
        source: What stands in place of a version: `("git", …)`, `("url", …)`, `("path", …)` or None.
        index: Name of the `[[tool.poetry.source]]` it comes from, or "".
        optional: Only extras of the project ask for it.
        spec: The table.
    """

    name: str
    versions: Constraint
    extras: tuple[str, ...]
    markers: tuple[str, ...]
    source: tuple[str, str] | None
    index: str
    optional: bool
    spec: Mapping[str, Any]

    def requirement(self, where: str) -> str:
        """The PEP 508 line that says the same (a path stays to whoever looks it up).

        Raises:
            DetectError: A constraint that no requirement can say.
        """
        extras = f"[{','.join(sorted(self.extras))}]" if self.extras else ""
        if self.source is not None and self.source[0] != "path":
            what = f" @ {self.source[1]}"
        elif len(self.versions.alternatives) != 1:
            message = f"{self.name} has alternatives (||) for its version, which no requirement can say"
            raise DetectError(message, where=where, hint="lock it: poetry lock")
        else:
            what = ",".join(sorted(str(specifier) for specifier in self.versions.alternatives[0]))
        marker = " and ".join(f"({marker})" for marker in self.markers)
        return f"{self.name}{extras}{what}" + (f" ; {marker}" if marker else "")


def parse_constraint(text: str, where: str) -> Constraint:
    """Translate poetry's notation for versions.

    Raises:
        DetectError: Not such a notation.
    """
    try:
        if len(text) > _LONGEST:
            raise ValueError
        alternatives = [_parse_all(part) for part in re.split(r"\s*\|\|?\s*", text.strip())]
        return Constraint(text, tuple(SpecifierSet(",".join(specifiers)) for specifiers in alternatives))
    except (ValueError, InvalidSpecifier):
        raise DetectError(f"'{show(text)}' is not a version constraint of poetry", where=where) from None


def _parse_all(text: str) -> list[str]:
    # `>= 1.0 , < 2`: the operator's blank is no separator.
    joined = re.sub(r"([\^~=<>!])\s+", r"\1", text.strip())
    return [specifier for part in re.split(r"[\s,]+", joined) if part for specifier in _parse_one(part)]


def _parse_one(text: str) -> list[str]:
    match = _PART.match(text)
    if match is None:
        raise ValueError(text)
    operator, version = match["op"] or "", match["version"]
    if version == "*" and operator in ("", "=", "=="):
        return []
    if wild := _WILD.match(version):
        return [f"{'!=' if operator == '!=' else '=='}{wild['release']}.*"]
    if operator in ("^", "~"):
        return [f">={version}", f"<{_next(Version(version).release, caret=operator == '^')}"]
    return [f"{operator if operator not in ('', '=') else '=='}{version}"]


def _next(release: tuple[int, ...], *, caret: bool) -> str:
    """The first version that breaks: for `^` the first part that is not zero counts, for `~` the second."""
    if caret:
        at = next((number for number, part in enumerate(release) if part), len(release) - 1)
    else:
        at = min(1, len(release) - 1)
    return ".".join(str(part) for part in (*release[:at], release[at] + 1))


def dependencies(values: Mapping[str, Any], at: Callable[[str], str]) -> Iterator[Dependency]:
    """All that the project and its groups depend on.

    Args:
        values: pyproject.toml.
        at: Tells `file:line` of a word.

    Raises:
        DetectError: A dependency that cannot be read.
    """
    project, poetry = _table(values.get("project")), _poetry(values)
    listed = project.get("dependencies")
    own = {canonicalize_name(name): (name, spec) for name, spec in _table(poetry.get("dependencies")).items()}
    own.pop(canonicalize_name("python"), None)
    if isinstance(listed, list):
        # poetry's table then only says more about what [project] lists.
        for line in listed:
            requirement = _requirement(line, at)
            _, spec = own.get(canonicalize_name(requirement.name), ("", None))
            yield from _of_requirement(requirement, spec, at)
    else:
        for name, spec in own.values():
            yield from _of_table(name, spec, at)
    for group in group_names(values):
        table = _table(_table(_table(poetry.get("group")).get(group)).get("dependencies"))
        for name, spec in table.items():
            yield from _of_table(name, spec, at)
        for line in _table(values.get("dependency-groups")).get(group) or ():
            if isinstance(line, str):
                yield from _of_requirement(_requirement(line, at), None, at)


def group_names(values: Mapping[str, Any]) -> list[str]:
    """The groups that are taken: those that are not optional, without `dev`."""
    groups = _table(_poetry(values).get("group"))
    names = dict.fromkeys((*groups, *_table(values.get("dependency-groups"))))
    return [
        name
        for name in names
        if canonicalize_name(name) != DEV and _table(groups.get(name)).get("optional", False) is not True
    ]


def python_versions(values: Mapping[str, Any]) -> str:
    """`[tool.poetry.dependencies] python`, or ""."""
    versions = _table(_poetry(values).get("dependencies")).get("python")
    versions = versions.get("version") if isinstance(versions, Mapping) else versions
    return versions if isinstance(versions, str) else ""


def sources(values: Mapping[str, Any]) -> dict[str, str]:
    """`[[tool.poetry.source]]`: name -> URL."""
    entries = _poetry(values).get("source")
    entries = entries if isinstance(entries, list) else []
    return {
        str(entry["name"]): str(entry["url"])
        for entry in entries
        if isinstance(entry, Mapping) and "name" in entry and "url" in entry
    }


def _of_table(name: str, spec: Any, at: Callable[[str], str]) -> Iterator[Dependency]:
    where = at(name)
    if not re.match(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z", name):
        raise DetectError(f"'{show(name)}' is not the name of a package", where=where)
    specs = spec if isinstance(spec, list) else [spec]
    for entry in specs:
        table = {"version": entry} if isinstance(entry, str) else entry
        if not isinstance(table, Mapping):
            raise DetectError(f"the dependency {show(name)} is neither a text nor a table", where=where)
        markers = [_text(table, "markers", where)]
        if python := _text(table, "python", where):
            markers.append(python_marker(parse_constraint(python, where)))
        extras = table.get("extras", [])
        if not isinstance(extras, list) or not all(isinstance(extra, str) for extra in extras):
            raise DetectError(f"the extras of {show(name)} are not a list of texts", where=where)
        yield Dependency(
            name=name,
            versions=parse_constraint(_text(table, "version", where) or "*", where),
            extras=tuple(extras),
            markers=tuple(marker for marker in markers if marker),
            source=_source(table, where),
            index=_text(table, "source", where),
            optional=table.get("optional") is True,
            spec=table,
        )


def _of_requirement(requirement: Requirement, spec: Any, at: Callable[[str], str]) -> Iterator[Dependency]:
    where = at(requirement.name)
    table = spec if isinstance(spec, Mapping) else {}
    yield Dependency(
        name=requirement.name,
        versions=Constraint(str(requirement.specifier), (requirement.specifier,)),
        extras=tuple(sorted(requirement.extras)),
        markers=(str(requirement.marker),) if requirement.marker else (),
        source=_source(table, where) or (("url", requirement.url) if requirement.url else None),
        index=_text(table, "source", where),
        optional=False,
        spec=table,
    )


def _requirement(line: Any, at: Callable[[str], str]) -> Requirement:
    try:
        return Requirement(line)
    except (InvalidRequirement, RecursionError, TypeError):
        raise DetectError(f"'{show(str(line))}' is not a requirement", where=at(str(line))) from None


def _source(table: Mapping[str, Any], where: str) -> tuple[str, str] | None:
    subdirectory = _text(table, "subdirectory", where)
    fragment = f"#subdirectory={subdirectory}" if subdirectory else ""
    if git := _text(table, "git", where):
        revision = next((found for key in ("rev", "tag", "branch") if (found := _text(table, key, where))), "")
        return "git", f"git+{git}" + (f"@{revision}" if revision else "") + fragment
    if url := _text(table, "url", where):
        return "url", url + fragment
    if path := _text(table, "path", where) or _text(table, "file", where):
        return "path", path
    return None


def python_marker(versions: Constraint) -> str:
    """The marker that holds for some versions of Python."""
    return " or ".join(
        "(" + " and ".join(f"python_full_version {s.operator} '{s.version}'" for s in sorted(specifiers, key=str)) + ")"
        for specifiers in versions.alternatives
        if len(specifiers)
    )


def _poetry(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return _table(_table(values.get("tool")).get("poetry"))


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise DetectError(f"{show(key)} is not a text", where=where)
    return value

"""Conda packages as what they are elsewhere: requirements of the Python package index, and Debian packages.

Nothing is guessed beyond the name: what the table (translations.toml) does not know keeps its name on the index, and
what it knows to be nowhere is refused. Each package is accounted for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from hpcbinder.plan import DetectError, parse_toml, show

from .environment import Environment
from .names import Table, of_python

_SPEC = re.compile(r"(?:(?P<channel>[^\s:]+)::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9_.+-]*)\s*(?P<rest>.*)", re.DOTALL)
_R = re.compile(r"(r|bioconductor)-[a-z0-9.-]+")
_EXACT = re.compile(r".+/(?P<name>[^/]+)-(?P<version>[^/-]+)-(?P<build>[^/-]+)(\.conda|\.tar\.bz2)(#.*)?")
_WITH_MPI = re.compile(r"\*?_?mpi_")
"""The build of what is parallel by MPI (conda-forge: `mpi_mpich_…`, `mpi_openmpi_…`, and `nompi_…`)."""
_LONGEST = 200
"""Characters of versions."""
_PART = re.compile(
    r"\s*(?P<operator>===?|=|!=|~=|>=?|<=?|)\s*(?P<version>[A-Za-z0-9.!+_-]+?)(?P<star>\.?\*)?\s*", re.DOTALL
)
_NO_VERSION = "is no version as PEP 440 has it"
_SHOWN = 60
"""Packages that are named one by one."""


@dataclass
class Translation:
    """What an environment of conda packages is without conda.

    Attributes:
        requirements: (line of a requirements file, line of the environment file).
        debian: Debian package -> the conda package it stands for.
        python: Range of versions (PEP 440), "" for any.
        where: Line of that, 0 if it is not known.
        r: R is wanted.
        notes: What became what, for a person.
    """

    requirements: list[tuple[str, int]] = field(default_factory=list)
    debian: dict[str, str] = field(default_factory=dict)
    python: str = ""
    where: int = 0
    r: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Wanted:
    name: str
    version: str
    build: str
    line: int


def read_table(text: str) -> Table:
    """The table of a pack, by its text."""
    values: Mapping[str, Any] = parse_toml(text, "translations.toml")
    return Table(
        {
            name: (tuple(what.get("pypi", ())), tuple(what.get("debian", ())))
            for name, what in values["packages"].items()
        },
        {name: reason for reason, names in values["needless"].items() for name in names},
        {name: reason for reason, names in values["refused"].items() for name in names},
    )


def translate(environment: Environment, path: str, table: Table) -> Translation:
    """Translate what an environment asks for; its pip section stays as it is.

    Raises:
        DetectError: Some packages have no counterpart: all of them are named.
    """
    work = _Work(table)
    wanted = [_wanted(spec, line) for spec, line in environment.specs]
    wanted += map(_of_url, environment.exact)
    for each in wanted:
        work.take(each)
    if work.refused:
        numbers = [number for number, _ in work.refused if number]
        raise DetectError(
            f"has no counterpart for {_some([words for _, words in sorted(work.refused)], '; ')}",
            where=f"{show(path)}:{min(numbers)}" if numbers else show(path),
            hint="leave out what the notebooks do without, name counterparts in the pip section or in apt.txt, or take "
            "conda packages (--conda packages)",
        )
    notes = work.found.notes
    notes.append("translated to PyPI's and Debian's packages, as conda.mode says")
    if work.changed:
        notes.append(_some(work.changed))
    if work.same:
        notes.append(f"by the same name on PyPI: {_some(work.same)}")
    notes += [f"left out, as {reason}: {_some(names)}" for reason, names in sorted(work.needless.items())]
    if versions := [each.name for each in wanted if each.version and _only_debian(each.name, table)]:
        notes.append(f"in Debian's version, whatever is asked for: {_some(versions)}")
    if any(spec.rpartition("::")[0] for spec, _ in environment.specs) or environment.channels:
        notes.append("its channels say nothing")
    return work.found


@dataclass
class _Work:
    """What is gathered package by package.

    Attributes:
        changed: What became what.
        same: Names that are the same on the index.
        needless: Reason -> names.
        refused: (line, name and reason).
    """

    table: Table
    found: Translation = field(default_factory=Translation)
    changed: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    needless: dict[str, list[str]] = field(default_factory=dict)
    refused: list[tuple[int, str]] = field(default_factory=list)

    def take(self, each: _Wanted) -> None:
        name, found = each.name, self.found
        if name == "python":
            if (version := _specifier(each)) is None:
                self._refuse(each, _NO_VERSION)
            found.python, found.where = ",".join(filter(None, (found.python, version or ""))), each.line
        elif _WITH_MPI.match(each.build):
            self._refuse(each, "by its build it is one for MPI, which elsewhere it is not")
        elif (why := self.table.needless(name)) is not None:
            self.needless.setdefault(why, []).append(name)
        elif name in self.table.refused:
            self._refuse(each, self.table.refused[name])
        elif name in self.table.packages:
            self._known(each)
        elif _R.fullmatch(name):
            kind, _, rest = name.partition("-")
            self._debian([f"r-{'cran' if kind == 'r' else 'bioc'}-{rest}"], name)
            self.changed.append(f"{name} is Debian's r-{'cran' if kind == 'r' else 'bioc'}-{rest}")
        elif each.build and not of_python(each.build):
            self._refuse(each, "by its build it is not of Python, and nothing more is known of it")
        elif (version := _specifier(each)) is None:
            self._refuse(each, _NO_VERSION)
        else:
            found.requirements.append((f"{name}{version}", each.line))
            self.same.append(name)

    def _known(self, each: _Wanted) -> None:
        pypi, debian = self.table.packages[each.name]
        version = _specifier(each)
        if pypi and version is None:
            return self._refuse(each, _NO_VERSION)
        # Of several the version is that of none.
        lines = [f"{name}{version}" if len(pypi) == 1 else name for name in pypi]
        self.found.requirements += [(line, each.line) for line in lines]
        self._debian(debian, each.name)
        parts = [*lines, *(f"Debian's {name}" for name in debian)]
        self.changed.append(f"{each.name} is {' and '.join(parts)}")
        return None

    def _debian(self, names: Sequence[str], stands_for: str) -> None:
        for name in names:
            self.found.debian.setdefault(name, stands_for)
        self.found.r = self.found.r or any(name.startswith("r-") for name in names)

    def _refuse(self, each: _Wanted, why: str) -> None:
        said = f"'{show(each.version[:100])}' {why}" if why is _NO_VERSION else why
        self.refused.append((each.line, f"{show(each.name[:100])}: {said}"))


def _only_debian(name: str, table: Table) -> bool:
    return not table.packages[name][0] if name in table.packages else _R.fullmatch(name) is not None


def _wanted(spec: str, line: int) -> _Wanted:
    match = _SPEC.fullmatch(spec)
    if match is None:
        return _Wanted(show(spec[:100]), spec, "", line)
    rest = match["rest"].strip()
    # `name=1.2=build` and `name 1.2 build` name one version, `name=1.2` all that begin so.
    parts = rest.split("=") if re.fullmatch(r"=[^=<>!~\s,|]+=[^=\s,|]+", rest) else []
    if parts:
        return _Wanted(
            match["name"].lower(), f"=={parts[1]}" if "*" not in parts[1] else f"={parts[1]}", parts[2], line
        )
    words = rest.split()
    if len(words) == 2 and not re.search(r"[,|<>!~]", rest):
        return _Wanted(match["name"].lower(), _plain(words[0]), words[1], line)
    return _Wanted(match["name"].lower(), _plain(rest), "", line)


def _of_url(url: str) -> _Wanted:
    match = _EXACT.fullmatch(url)
    assert match is not None  # readers of locks take no others
    return _Wanted(match["name"].lower(), f"=={match['version']}", match["build"], 0)


def _plain(version: str) -> str:
    """Behind a blank, a version without an operator is exact."""
    return f"=={version}" if re.match(r"[A-Za-z0-9]", version) and not re.search(r"[*|]", version) else version


def _specifier(wanted: _Wanted) -> str | None:
    """Conda's versions in PEP 440's words, a build left out; None if they cannot be said so."""
    version = wanted.version
    if version in ("", "*", "=*"):
        return ""
    if "|" in version or len(version) > _LONGEST:
        return None
    said = []
    for part in version.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            return None
        operator, number, star = match["operator"], match["version"], bool(match["star"])
        if operator in ("=", "") or (operator == "==" and star):
            said.append(f"=={number}.*" if operator == "=" or star else f"=={number}")
        elif operator == "!=" and star:
            said.append(f"!={number}.*")
        else:
            said.append(f"{operator.replace('===', '==')}{number}")
    try:
        return ",".join(sorted(map(str, SpecifierSet(",".join(said)))))
    except InvalidSpecifier:
        return None


def _some(words: Sequence[str], between: str = ", ") -> str:
    more = f"{between}and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return between.join(words[:_SHOWN]) + more

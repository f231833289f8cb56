"""poetry.lock: what `poetry install --without dev` would install, for the image's interpreter.

The format is poetry's own (`poetry/packages/locker.py`, versions 1.0 to 2.1). What is installed is what is reachable
from pyproject.toml, which all versions of it need: the older ones do not say what belongs to which group.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from packaging.utils import canonicalize_name

from hpcbinder.plan import Repo, show

from .locked import Document, Locked, Pin, Reader
from .poetry import Dependency, dependencies, group_names, parse_constraint
from .target import Target
from .uv_lock import stale

_LEGACY = ("dependencies", "source", "extras", "dev-dependencies")
_PROJECT = ("requires-python", "dependencies", "optional-dependencies")


def read_poetry_lock(repo: Repo, document: Document, target: Target, pyproject: str) -> Locked:
    """Read a poetry.lock.

    Args:
        document: The lock.
        target: What for.
        pyproject: The project file it is the lock of.

    Raises:
        DetectError: Not such a file, or something in it that is not allowed.
    """
    values = repo.read_toml(pyproject)
    reader = _PoetryLock(Reader(repo, document, target))
    words = repo.read_text(pyproject).split("\n")

    def at(word: str) -> str:
        line = next((number for number, line in enumerate(words, start=1) if word in line), None)
        return f"{show(pyproject)}:{line}" if line else show(pyproject)

    wanted = [dependency for dependency in dependencies(values, at) if not dependency.optional]
    missing = reader.follow(wanted)
    notes = []
    if groups := group_names(values):
        notes.append(f"with the group {', '.join(show(group) for group in groups)}")
    made_of = document.word(document.table(document.values.get("metadata")).get("content-hash"))
    if missing or made_of not in content_hashes(values):
        notes.append(stale(missing, show(pyproject), "poetry lock"))
    asked = [canonicalize_name(dependency.name) for dependency in wanted]
    return reader.reader.result(asked=asked, notes=notes)


class _PoetryLock:
    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.document = document = reader.document
        metadata = document.table(document.values.get("metadata"))
        version = document.word(metadata.get("lock-version"))
        if version.partition(".")[0] not in ("1", "2"):
            document.fail(f"is version {show(version) or '(none)'} of poetry's lock format; 1 and 2 can be read")
        files = document.table(metadata.get("files"))
        self.files: dict[str, Any] = {canonicalize_name(name): entries for name, entries in files.items()}
        self.packages: dict[str, list[Mapping[str, Any]]] = {}
        for package in document.tables(document.values.get("package")):
            self.packages.setdefault(reader.name(package.get("name")), []).append(package)

    def follow(self, wanted: list[Dependency]) -> list[str]:
        """Take what is wanted and all it depends on.

        Returns:
            Names of what is wanted and not locked.
        """
        missing: list[str] = []
        pending: list[tuple[str, Mapping[str, Any], str]] = []
        for dependency in wanted:
            name = self.reader.name(dependency.name)
            if not all(self._holds(marker, name) for marker in dependency.markers):
                continue
            package = self._find(name, dependency)
            if package is None:
                missing.append(name)
                continue
            pending.append((name, package, ""))
            pending += [(name, package, canonicalize_name(extra)) for extra in dependency.extras]
        seen: set[tuple[int, str]] = set()
        while pending:
            name, package, extra = pending.pop()
            if (id(package), extra) in seen:
                continue
            seen.add((id(package), extra))
            if not extra:
                self._add(name, package)
            pending += self._below(name, package, extra)
        return missing

    def _below(self, name: str, package: Mapping[str, Any], extra: str) -> list[tuple[str, Mapping[str, Any], str]]:
        extras = self.document.table(package.get("extras"), name)
        named: dict[str, list[str]] = {
            canonicalize_name(key): self.document.words(value, name) for key, value in extras.items()
        }
        of_extra = {canonicalize_name(re.split(r"[\s\[(;<>=!~]", line)[0]) for line in named.get(extra, [])}
        found: list[tuple[str, Mapping[str, Any], str]] = []
        for key, spec in self.document.table(package.get("dependencies"), name).items():
            other = self.reader.name(key)
            self.reader.link()
            for entry in spec if isinstance(spec, list) else [spec]:
                table = {"version": entry} if isinstance(entry, str) else self.document.table(entry, name)
                optional = table.get("optional") is True
                if optional != bool(extra) or (optional and other not in of_extra):
                    continue
                marker = self.document.word(table.get("markers"), name)
                if not self.reader.target.holds(marker, self.document.at(name), extras=[extra] if extra else ()):
                    continue
                versions = parse_constraint(
                    self.document.word(table.get("version"), name) or "*", self.document.at(name)
                )
                inner = self.document.words(table.get("extras"), name)
                dependency = Dependency(key, versions, tuple(inner), (), None, "", optional, table)
                package_below = self._find(other, dependency)
                if package_below is None:
                    self.document.fail(f"{name} depends on {other}, which it does not lock", name, "poetry lock")
                found.append((other, package_below, ""))
                found += [(other, package_below, canonicalize_name(word)) for word in inner]
        return found

    def _find(self, name: str, wanted: Dependency) -> Mapping[str, Any] | None:
        """The one of the packages of a name that is meant for this interpreter."""
        packages = self.packages.get(name, [])
        # Of a single one that is wanted, what it says of itself changes nothing: `extra == "x"` of what an extra of the
        # project wants too, say.
        for test in (self._runs, self._for_here, lambda package: self._is_wanted(package, wanted)):
            packages = [package for package in packages if test(package)] if len(packages) > 1 else packages
        if len(packages) > 1:
            self.document.fail(f"locks several versions of {name} for one Python", name)
        return packages[0] if packages else None

    def _runs(self, package: Mapping[str, Any]) -> bool:
        name = str(package["name"])
        text = self.document.word(package.get("python-versions"), name) or "*"
        return parse_constraint(text, self.document.at(name)).allows(self.reader.target.python.full)

    def _is_wanted(self, package: Mapping[str, Any], wanted: Dependency) -> bool:
        version = self.reader.version(package.get("version"), str(package["name"]))
        return "source" in package or wanted.versions.allows(version)

    def _for_here(self, package: Mapping[str, Any]) -> bool:
        name, markers = str(package["name"]), package.get("markers", "")
        texts = list(markers.values()) if isinstance(markers, Mapping) else [markers]
        return any(self._holds(self.document.word(text, name), name) for text in texts)

    def _holds(self, marker: str, name: str) -> bool:
        return self.reader.target.holds(marker, self.document.at(name))

    def _add(self, name: str, package: Mapping[str, Any]) -> None:
        reader, word = self.reader, self.document.word
        version = reader.version(package.get("version"), name)
        entries = self.document.tables(package.get("files", self.files.get(name)), name)
        files = tuple(reader.file(entry, name) for entry in entries)
        if len(self.packages[name]) > 1:
            # Format 1 lists the files of all versions of a name together.
            ends = tuple(f"-{version}{end}" for end in (".tar.gz", ".zip", ".tar.bz2"))
            files = tuple(file for file in files if f"-{version}-" in file.name or file.name.endswith(ends))
        source = self.document.table(package.get("source"), name)
        kind, url = word(source.get("type"), name), word(source.get("url"), name)
        subdirectory = word(source.get("subdirectory"), name)
        if not kind:
            reader.add(Pin(name, version, files))
        elif kind == "legacy":
            reader.add(Pin(name, version, files, reader.index(url, name)))
        elif kind == "git":
            commit = word(source.get("resolved_reference"), name)
            reader.add(reader.git(name, version, url, commit, subdirectory=subdirectory))
        elif kind == "url":
            reader.add(reader.url(name, version, url, files, subdirectory=subdirectory))
        elif kind in ("directory", "file"):
            reader.add(reader.local(name, url, editable=package.get("develop") is True))
        else:
            self.document.fail(f"takes {name} from a place of a kind that is not supported: {show(kind)}", name)


def content_hashes(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The `content-hash` that poetry writes into a lock made of a pyproject.toml (`Locker._get_content_hash`): with the
    groups of PEP 735, and without, as its older versions do."""
    project, tool = values.get("project", {}), values.get("tool", {})
    poetry = tool.get("poetry", {}) if isinstance(tool, Mapping) else {}
    groups = values.get("dependency-groups", {})
    if not isinstance(project, Mapping) or not isinstance(poetry, Mapping):
        return ()
    found = []
    for with_groups in (True, False):
        described = {key: project[key] for key in _PROJECT if project.get(key) is not None}
        content: dict[str, Any] = {"project": described} if described else {}
        if with_groups and groups:
            content["dependency-groups"] = groups
        tables = {
            key: poetry.get(key)
            for key in (*_LEGACY, "group")
            if poetry.get(key) is not None or (key in _LEGACY and not content)
        }
        content = {**content, "tool": {"poetry": tables}} if content else tables
        try:
            text = json.dumps(content, sort_keys=True)
        except (TypeError, ValueError, RecursionError):
            continue
        found.append(hashlib.sha256(text.encode()).hexdigest())
    return tuple(found)

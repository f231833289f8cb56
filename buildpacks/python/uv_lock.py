"""uv.lock: what `uv sync` would install, for the image's interpreter.

The format is uv's own (uv `crates/uv-resolver/src/lock/mod.rs`); versions of it with the same `version` stay readable.
What is installed is what is reachable from the project: its dependencies, and the groups that uv takes by itself
(`default-groups` of `[tool.uv]`, else `dev`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from hpcbinder.plan import Repo, show

from .locked import Document, Locked, Pin, Reader
from .target import Target

FORMAT = 1

_EXTRA = re.compile(r"extra\s*(==|!=)\s*(?:'([^']*)'|\"([^\"]*)\")")
_TRUE, _FALSE = "os_name == 'posix'", "os_name != 'posix'"


def read_uv_lock(repo: Repo, document: Document, target: Target, pyproject: str) -> Locked:
    """Read a uv.lock.

    Args:
        document: The lock.
        target: What for.
        pyproject: The project file it is the lock of.

    Raises:
        DetectError: Not such a file, or something in it that is not allowed.
    """
    return _UvLock(Reader(repo, document, target), repo.read_toml(pyproject)).read()


class _UvLock:
    def __init__(self, reader: Reader, project: Mapping[str, Any]) -> None:
        self.reader = reader
        self.document = document = reader.document
        self.project = project
        if document.values.get("version") != FORMAT:
            version = show(str(document.values.get("version")))
            document.fail(f"is version {version} of uv's lock format; {FORMAT} can be read")
        self.packages: dict[str, list[Mapping[str, Any]]] = {}
        for package in document.tables(document.values.get("package")):
            self.packages.setdefault(reader.name(package.get("name")), []).append(package)
        self.active: set[str] = set()

    def read(self) -> Locked:
        roots = self._roots()
        groups = {name: self._groups(name, package) for name, package in roots.items()}
        for name, package in roots.items():
            self.active.add(f"project-{len(name)}-{name}")
            self.active |= {f"group-{len(name)}-{name}-{group}" for group in groups[name]}
            if not self._is_root(package):
                self._add(name, package)
        # An extra that becomes active on the way may change what a marker before it says.
        before = -1
        while before != len(self.active):
            before = len(self.active)
            reached = self._walk(roots, groups)
        for name, package in reached:
            self._add(name, package)
        installed = any(self._is_root(package) and "virtual" not in self._source(package) for package in roots.values())
        taken = sorted({group for names in groups.values() for group in names})
        notes = [f"with the group {', '.join(show(group) for group in taken)}, as `uv sync`"] if taken else []
        asked = [name for root in roots for name, _, _ in self._wanted(root, roots[root], groups[root])]
        return self.reader.result(project=installed, asked=asked, notes=(*notes, *self._stale(roots)))

    def _roots(self) -> dict[str, Mapping[str, Any]]:
        for name, packages in self.packages.items():
            for package in packages:
                if self._is_root(package):
                    return {name: package}
        manifest = self.document.table(self.document.values.get("manifest"))
        members = [self.reader.name(member) for member in self.document.words(manifest.get("members"))]
        roots = {member: self.packages[member][0] for member in members if member in self.packages}
        if not roots:
            self.document.fail("is the lock of no project of this repository", hint="make it anew: uv lock")
        return roots

    def _source(self, package: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.document.table(package.get("source"), str(package.get("name")))

    def _is_root(self, package: Mapping[str, Any]) -> bool:
        source = self._source(package)
        return any(source.get(kind) == "." for kind in ("virtual", "editable", "directory"))

    def _groups(self, name: str, package: Mapping[str, Any]) -> list[str]:
        there = list(self.document.table(package.get("dev-dependencies"), name))
        tool = self.project.get("tool")
        uv = tool.get("uv") if isinstance(tool, Mapping) else None
        wanted = uv.get("default-groups", ["dev"]) if isinstance(uv, Mapping) and self._is_root(package) else ["dev"]
        if wanted == "all":
            return there
        names = {canonicalize_name(group) for group in wanted if isinstance(group, str)}
        return [group for group in there if canonicalize_name(group) in names]

    def _walk(
        self, roots: Mapping[str, Mapping[str, Any]], groups: Mapping[str, list[str]]
    ) -> list[tuple[str, Mapping[str, Any]]]:
        """The packages that are reached, without the roots."""
        seen: dict[tuple[int, str], tuple[str, Mapping[str, Any]]] = {}
        pending: list[tuple[str, Mapping[str, Any], str]] = [(name, package, "") for name, package in roots.items()]
        for name, package in roots.items():
            pending += self._wanted(name, package, groups[name])
        while pending:
            name, package, extra = pending.pop()
            if (id(package), extra) in seen:
                continue
            seen[id(package), extra] = (name, package)
            if extra:
                self.active.add(f"extra-{len(name)}-{name}-{extra}")
                extras = self.document.table(package.get("optional-dependencies"), name)
                pending += self._dependencies(name, extras.get(extra))
            else:
                pending += self._dependencies(name, package.get("dependencies"))
        top = {id(package) for package in roots.values()}
        found = {key: value for (key, _), value in seen.items() if key not in top}
        return list(found.values())

    def _wanted(
        self, name: str, package: Mapping[str, Any], groups: list[str]
    ) -> list[tuple[str, Mapping[str, Any], str]]:
        """What a root depends on itself, and in its groups."""
        tables = self.document.table(package.get("dev-dependencies"), name)
        found = self._dependencies(name, package.get("dependencies"))
        return found + [one for group in groups for one in self._dependencies(name, tables.get(group))]

    def _dependencies(self, of: str, entries: Any) -> list[tuple[str, Mapping[str, Any], str]]:
        found = []
        for entry in self.document.tables(entries, of):
            name = self.reader.name(entry.get("name"))
            self.reader.link()
            if not self._holds(self.document.word(entry.get("marker"), of), of):
                continue
            package = self._find(name, entry, of)
            found.append((name, package, ""))
            found += [(name, package, extra) for extra in self.document.words(entry.get("extra"), of)]
        return found

    def _find(self, name: str, entry: Mapping[str, Any], of: str) -> Mapping[str, Any]:
        packages = [
            package
            for package in self.packages.get(name, [])
            if all(key not in entry or entry[key] == package.get(key) for key in ("version", "source"))
        ]
        if len(packages) != 1:
            what = "which it does not lock" if not packages else "of which it locks several"
            self.document.fail(f"{of} depends on {name}, {what}", of, hint="make it anew: uv lock")
        return packages[0]

    def _holds(self, marker: str, name: str) -> bool:
        """A marker; uv writes the extras and groups that exclude each other as names of extras into it
        (`crates/uv-resolver/src/universal_marker.rs`)."""

        def known(match: re.Match[str]) -> str:
            active = (match[2] or match[3] or "") in self.active
            return _TRUE if active == (match[1] == "==") else _FALSE

        return self.reader.target.holds(_EXTRA.sub(known, marker), self.document.at(name))

    def _add(self, name: str, package: Mapping[str, Any]) -> None:
        reader, word = self.reader, self.document.word
        source = self._source(package)
        version = reader.version(package["version"], name) if "version" in package else ""
        entries = self.document.tables(package.get("wheels"), name)
        if sdist := self.document.table(package.get("sdist"), name):
            entries = [*entries, sdist]
        files = tuple(reader.file(entry, name) for entry in entries)
        subdirectory = word(source.get("subdirectory"), name)
        if registry := word(source.get("registry"), name):
            if "://" not in registry:
                self.document.fail(f"takes {name} from a folder of packages", name, "an index with an https URL works")
            reader.add(Pin(name, version, files, reader.index(registry, name)))
        elif git := word(source.get("git"), name):
            url, _, commit = git.partition("#")
            url, _, query = url.partition("?")
            subdirectory = (parse_qs(query).get("subdirectory") or [subdirectory])[0]
            reader.add(reader.git(name, version, url, commit, subdirectory=subdirectory))
        elif url := word(source.get("url"), name):
            reader.add(reader.url(name, version, url, files, subdirectory=subdirectory))
        elif path := word(source.get("path") or source.get("directory") or source.get("editable"), name):
            # uv installs members of a workspace in place. Here they are copies like the project itself: then a changed
            # notebook beside them installs nothing again.
            reader.add(reader.local(name, path))
        elif "virtual" not in source:
            self.document.fail(f"takes {name} from a place of a kind that is not supported", name)

    def _stale(self, roots: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """What the project file says that the lock does not know: it was changed since."""
        table = self.project.get("project")
        package = next((package for package in roots.values() if self._is_root(package)), None)
        if package is None or not isinstance(table, Mapping) or "dependencies" in (table.get("dynamic") or ()):
            return []
        metadata = self.document.table(package.get("metadata"))
        if "requires-dist" not in metadata:
            # Locks of uv before 0.5 do not say.
            return []
        locked = {
            (canonicalize_name(str(entry.get("name"))), _specifier(str(entry.get("specifier", ""))))
            for entry in self.document.tables(metadata.get("requires-dist"))
        }
        names = {name for name, _ in locked}
        sources = self.project.get("tool", {})
        sources = sources.get("uv", {}) if isinstance(sources, Mapping) else {}
        sources = sources.get("sources", {}) if isinstance(sources, Mapping) else {}
        elsewhere = {canonicalize_name(name) for name in sources} if isinstance(sources, Mapping) else set()
        changed = []
        for line in table.get("dependencies") or ():
            try:
                wanted = Requirement(line)
            except (InvalidRequirement, TypeError, RecursionError):
                continue
            name = canonicalize_name(wanted.name)
            known = name in names if name in elsewhere or wanted.url else (name, wanted.specifier) in locked
            if not known:
                changed.append(name)
        return [stale(changed, "pyproject.toml", "uv lock")] if changed else []


def stale(changed: Sequence[str], file: str, command: str) -> str:
    """The note about a lock whose project file was changed since: it is used as it is."""
    about = f" ({', '.join(changed[:5])})" if changed else ""
    return f"older than {file}{about}: used as it is; `{command}` makes it anew"


def _specifier(text: str) -> SpecifierSet:
    try:
        return SpecifierSet(text)
    except InvalidSpecifier:
        return SpecifierSet()

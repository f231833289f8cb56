"""Which packages apt would install on a base."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from hpcbinder.apt.programs import Programs
from hpcbinder.debian import Mirrors, sources_list
from hpcbinder.errors import BuildError
from hpcbinder.text import one_line

_FILE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9+.-]*)_(?P<version>[0-9][A-Za-z0-9.+~%-]*)_(?P<architecture>[a-z0-9-]+)\.deb"
)
_URI = re.compile(r"'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>[0-9]+) SHA256:(?P<sha256>[0-9a-f]{64})")
_PATH = re.compile(r"[A-Za-z0-9/._+~%-]+")
_MISSING = re.compile(
    r"E: (?:Unable to locate package |Package ')(?P<name>[a-z0-9+.-]+)(?:' has no installation candidate)?$",
    re.MULTILINE,
)
_NO_VERSION = re.compile(r"E: Version '(?P<version>[^']+)' for '(?P<name>[^']+)' was not found$", re.MULTILINE)
_LARGEST = 4 << 30
_SHOWN = 3


@dataclass(frozen=True)
class Target:
    """What packages are for.

    Attributes:
        suite: Of Debian.
        architecture: Debian's name.
    """

    suite: str
    architecture: str


@dataclass(frozen=True)
class Deb:
    """A package's file.

    Attributes:
        source: Debian's own address and suite, of which mirrors have it (`Archive.sources`).
        path: Below that address.
        file: Its name as apt keeps it.
        size: Bytes.
        sha256: Hex.
    """

    name: str
    version: str
    architecture: str
    source: tuple[str, str]
    path: str
    file: str
    size: int
    sha256: str


class NoSuchPackage(BuildError):
    """Debian has no package of a name, or not in a version.

    Attributes:
        word: What was asked for.
    """

    def __init__(self, message: str, word: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, where=where, hint=hint)
        self.word = word


class Resolver:
    """apt of a base.

    Args:
        programs: Of the base.
        target: What it is.
        scratch: New folder for what apt writes.
    """

    def __init__(self, programs: Programs, target: Target, scratch: Path) -> None:
        self._programs = programs
        self._target = target
        self._scratch = scratch

    def resolve(self, words: Sequence[str], lists: Path) -> list[Deb]:
        """What would be fetched, sorted by name; nothing where all is there already.

        Args:
            words: `name` or `name=version`, checked to be such.
            lists: Folder of verified lists.

        Raises:
            NoSuchPackage: One is not there.
            BuildError: They do not go together.
            OSError: The scratch folder cannot be written.
        """
        config = self._configured(lists)
        done = self._programs.run(
            "apt-get", ["-q", "-y", "--print-uris", "install", "--", *words], {"APT_CONFIG": str(config)}
        )
        said = done.stdout.decode(errors="replace")
        if done.returncode:
            raise self._failure(words, said, done.stderr.decode(errors="replace"), lists)
        return sorted((self._deb(line) for line in said.splitlines() if line.startswith("'")), key=lambda deb: deb.name)

    def _configured(self, lists: Path) -> Path:
        cache = self._scratch / "cache"
        (cache / "archives/partial").mkdir(parents=True)
        sources = self._scratch / "sources.list"
        sources.write_text(sources_list(self._target.suite))
        values = {
            "APT::Architecture": self._target.architecture,
            "Dir": self._programs.root,
            "Dir::State::Lists": lists,
            "Dir::Cache": cache,
            "Dir::Log": cache,
            "Dir::Etc::SourceList": sources,
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Parts": "/dev/null",
            # Which architectures there are is said below: nobody needs to be asked.
            "Dir::Bin::dpkg": "/nonexistent",
            "APT::Install-Recommends": "false",
            "Acquire::Languages": "none",
            "Acquire::ForceHash": "SHA256",
            "Debug::NoLocking": "true",
        }
        if any(mark in str(value) for value in values.values() for mark in '"\n'):
            raise BuildError("apt cannot be run in a folder whose name has a quotation mark", where=str(self._scratch))
        config = self._scratch / "apt.conf"
        lines = [f'{name} "{value}";\n' for name, value in values.items()]
        config.write_text("".join([*lines, f'APT::Architectures {{ "{self._target.architecture}"; }};\n']))
        return config

    def _deb(self, line: str) -> Deb:
        uri = _URI.fullmatch(line.strip())
        file = _FILE.fullmatch(uri["file"]) if uri else None
        if uri and file:
            for address, suite in Mirrors().sources(self._target.suite):
                path = uri["uri"].removeprefix(f"{address}/")
                if path != uri["uri"] and _PATH.fullmatch(path) and ".." not in path and int(uri["size"]) <= _LARGEST:
                    version, size = unquote(file["version"]), int(uri["size"])
                    source = (address, suite)
                    return Deb(
                        file["name"], version, file["architecture"], source, path, uri["file"], size, uri["sha256"]
                    )
        raise BuildError(f"apt names a package that nobody can fetch: {one_line(line, 200)}")

    def _failure(self, words: Sequence[str], said: str, errors: str, lists: Path) -> BuildError:
        suite = self._target.suite
        if match := _MISSING.search(errors):
            close = difflib.get_close_matches(match["name"], _names(lists), n=_SHOWN, cutoff=0.75)
            hint = f"near to it: {', '.join(close)}" if close else "https://packages.debian.org knows what there is"
            if real := _providers(lists, match["name"]):
                hint = f"it is a name for one of {', '.join(real[:_SHOWN])}"
            word = next((word for word in words if word.partition("=")[0] == match["name"]), match["name"])
            return NoSuchPackage(f"Debian {suite} has no package '{match['name']}'", word, hint=hint)
        if match := _NO_VERSION.search(errors):
            name, version = match["name"], match["version"]
            there = sorted(_versions(lists, name))
            message = f"Debian {suite} has no version {one_line(version, 80)} of {one_line(name, 80)}"
            return NoSuchPackage(message, f"{name}={version}", hint=f"it has {', '.join(there[:_SHOWN])}")
        # apt tells what is in the way before it gives up.
        _, found, rest = said.partition("have unmet dependencies:\n")
        reasons = [one_line(line.strip(), 120) for line in rest.splitlines() if line.startswith(" ")] if found else []
        last = [line.removeprefix("E: ") for line in errors.splitlines() if line.startswith("E:")]
        reason = "; ".join(reasons[:5]) or one_line((last or ["it said nothing"])[-1], 200)
        return BuildError(
            f"apt cannot install what is asked for: {reason}",
            hint="packages that conflict cannot be in one image" if "Conflicts:" in reason else None,
        )


def sound(deb: Deb) -> bool:
    """Whether one that was read from a file of a store can be what apt said: its words become paths."""
    file = _FILE.fullmatch(deb.file)
    return bool(
        file
        and (file["name"], unquote(file["version"]), file["architecture"]) == (deb.name, deb.version, deb.architecture)
        and _PATH.fullmatch(deb.path)
        and ".." not in deb.path
        and re.fullmatch(r"[0-9a-f]{64}", deb.sha256)
        and 0 <= deb.size <= _LARGEST
    )


def _names(lists: Path) -> list[str]:
    return sorted({name for name, _ in _paragraphs(lists)})


def _providers(lists: Path, name: str) -> list[str]:
    """Packages that say they provide one of this name."""
    found: set[str] = set()
    wanted = re.compile(rf"(?:Provides: |, ){re.escape(name)}(?=[ ,\n])")
    for path in sorted(lists.glob("*_Packages")):
        package = ""
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("Package: "):
                    package = line[9:].strip()
                elif line.startswith("Provides: ") and wanted.search(line):
                    found.add(package)
    return sorted(found)


def _versions(lists: Path, name: str) -> set[str]:
    return {version for found, version in _paragraphs(lists) if found == name}


def _paragraphs(lists: Path) -> Iterable[tuple[str, str]]:
    """Name and version of all packages there are."""
    for path in sorted(lists.glob("*_Packages")):
        name = ""
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("Package: "):
                    name = line[9:].strip()
                elif line.startswith("Version: "):
                    yield name, line[9:].strip()

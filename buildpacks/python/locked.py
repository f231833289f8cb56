"""What a lock file of the repository pins, whichever tool wrote it: checked, and sorted by how it can be installed.

Nothing of a lock file is believed unchecked: names, versions, hashes and URLs become part of requirements files, and
pass the same checks as those of requirements.txt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from hpcbinder.plan import DetectError, Lock, LockedPackage, Repo, show

from .requirements import Local, check_index, clean_requirement, local_project
from .target import Target

LIMIT = 8 << 20
"""Bytes a lock file may have: those of the largest real projects are below half of it."""

MOST_PACKAGES = 5000

MOST_LINKS = 50_000
"""Dependencies that are followed from one package to another; the largest real locks have a tenth of it."""

PYPI = ("pypi.org", "pypi.python.org")

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.!+_-]*\Z")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?\Z")
_ENTRY = re.compile(r"name = \"([^\"]+)\"|\s*\"([^\"]+)\": \{")
"""A line at which a package begins, in TOML and in JSON."""


class Document:
    """A lock file's text, which knows at which line a package stands.

    Attributes:
        path: Below the repository's root.
        values: What it holds.
        text: Its text.
    """

    def __init__(self, path: str, text: str, values: Mapping[str, Any]) -> None:
        self.path = path
        self.text = text
        self.values = values
        self._lines: dict[str, int] = {}
        for number, line in enumerate(text.split("\n"), start=1):
            if match := _ENTRY.match(line):
                self._lines.setdefault(canonicalize_name(match[1] or match[2]), number)

    def at(self, name: str = "") -> str:
        """`file:line` of a package, or just the file."""
        line = self._lines.get(canonicalize_name(name))
        return f"{show(self.path)}:{line}" if line else show(self.path)

    def fail(self, message: str, name: str = "", hint: str | None = None) -> NoReturn:
        """Raise an error about a package, or the whole file."""
        raise DetectError(message, where=self.at(name), hint=hint)

    def table(self, value: Any, name: str = "") -> Mapping[str, Any]:
        """The value, which must be a table; none is an empty one."""
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.fail("holds something else where a table belongs", name)
        return value

    def tables(self, value: Any, name: str = "") -> list[Mapping[str, Any]]:
        """The value, which must be a list of tables; none is an empty one."""
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            self.fail("holds something else where a list of tables belongs", name)
        return value

    def word(self, value: Any, name: str = "") -> str:
        """The value, which must be a text; none is an empty one."""
        if value is None:
            return ""
        if not isinstance(value, str):
            self.fail("holds something else where a text belongs", name)
        return value

    def words(self, value: Any, name: str = "") -> list[str]:
        """The value, which must be a list of texts; none is an empty one."""
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.fail("holds something else where a list of texts belongs", name)
        return value


def open_lock(repo: Repo, path: str) -> Document:
    """A lock file as data: JSON if it is a Pipfile.lock, else TOML.

    Raises:
        DetectError: It is too long, or malformed (with the line).
    """
    text = repo.read_text(path, limit=LIMIT)
    if not path.endswith("Pipfile.lock"):
        return Document(path, text, repo.read_toml(path, limit=LIMIT))
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        message = f"malformed JSON: {error.msg.lower()}"
        raise DetectError(message, where=f"{show(path)}:{error.lineno}") from None
    except (RecursionError, ValueError):
        raise DetectError("malformed JSON: nested too deep, or a number too long", where=show(path)) from None
    if not isinstance(values, dict):
        raise DetectError("is no lock of pipenv", where=show(path))
    return Document(path, text, values)


@dataclass(frozen=True)
class File:
    """A file that may be installed for a package.

    Attributes:
        name: File name, "" where the lock does not tell.
        hash: `sha256:…`, "" where the lock has none.
        url: Where the lock says it is, or "".
    """

    name: str
    hash: str
    url: str = ""


@dataclass(frozen=True)
class Pin:
    """One package of a lock file.

    Attributes:
        name: Normalised.
        version: "" where only building it tells, or any will do.
        files: What may be installed for it.
        index: URL of the index it comes from if that is not PyPI.
        line: Requirement that installs it, if it comes from no index.
        local: The folder or archive of the repository that it is.
    """

    name: str
    version: str = ""
    files: tuple[File, ...] = ()
    index: str = ""
    line: str = ""
    local: Local | None = None


@dataclass(frozen=True)
class Locked:
    """What a lock file says is to be installed for one interpreter and platform.

    Attributes:
        path: The file.
        lock: The packages of the index that have wheels which fit.
        open: Lines of packages of which only the index can tell whether they have a wheel that fits.
        build: Lines of packages that are built (sdists, git), or come from an index that only the build may ask.
        indexes: https URLs of such indexes.
        locals: Projects and archives in the repository that belong to the environment.
        project: The root's own project is installed too, if it is one.
        asked: Normalised names of what is asked for, as far as the lock tells; the rest comes with it.
        notes: What a person should know, for the plan.
    """

    path: str
    lock: Lock
    open: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    locals: tuple[Local, ...] = ()
    project: bool = True
    asked: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many packages it is."""
        return len(self.lock.packages) + len(self.open) + len(self.build)

    @property
    def pins(self) -> tuple[str, ...]:
        """`name==version` of all that come from an index in a known version."""
        lines = [f"{package.name}=={package.version}" for package in self.lock.packages]
        lines += [line.partition(" ")[0] for line in (*self.open, *self.build) if " @ " not in line]
        return tuple(sorted(line for line in lines if "==" in line))

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """Names of what is not to be taken from the index by whoever resolves something beside it."""
        return tuple(sorted(re.split(r"[\s=]", line)[0] for line in self.build))


@dataclass
class Reader:
    """Gathers pins while a lock file is read."""

    repo: Repo
    document: Document
    target: Target
    pins: dict[str, Pin] = field(default_factory=dict)
    links: int = 0

    def name(self, value: Any) -> str:
        """A package's normalised name.

        Raises:
            DetectError: Not a name.
        """
        if not isinstance(value, str) or not _NAME.match(value) or len(value) > 200:
            self.document.fail(f"'{show(str(value))}' is not the name of a package")
        return canonicalize_name(value)

    def link(self) -> None:
        """Count a dependency that is followed.

        Raises:
            DetectError: There are too many.
        """
        self.links += 1
        if self.links > MOST_LINKS:
            self.document.fail(f"has more than {MOST_LINKS} dependencies")

    def version(self, value: Any, name: str) -> str:
        """A package's version, as the lock has it.

        Raises:
            DetectError: Not a version.
        """
        text = self.document.word(value, name)
        if not _VERSION.match(text) or len(text) > 100 or not _is_version(text):
            self.document.fail(f"'{show(text)}' is not a version of {name}", name)
        return text

    def index(self, url: str, name: str) -> str:
        """URL of an index, "" for PyPI.

        Raises:
            DetectError: Not one that can be asked.
        """
        if host_of(url) in PYPI:
            return ""
        check_index(url, self.document.at(name))
        return url

    def file(self, entry: Mapping[str, Any], name: str, *, hash_: Any = None) -> File:
        """A file's entry with `url`, `filename`, `name` or `path`, and its hash.

        Args:
            hash_: Its hash, where it is not the entry's `hash`.
        """
        word = self.document.word
        url, path = word(entry.get("url"), name), word(entry.get("path"), name)
        filename = word(entry.get("filename") or entry.get("name") or entry.get("file"), name)
        filename = filename or unquote(re.split(r"[?#]", url or path)[0].rpartition("/")[2])
        return File(filename, checked_hash(entry.get("hash") if hash_ is None else hash_), url)

    def add(self, pin: Pin) -> None:
        """Take a package.

        Raises:
            DetectError: There is another of its name, or there are too many.
        """
        known = self.pins.setdefault(pin.name, pin)
        if known != pin:
            self.document.fail(f"locks {pin.name} twice for one Python: {known.version} and {pin.version}", pin.name)
        if len(self.pins) > MOST_PACKAGES:
            self.document.fail(f"locks more than {MOST_PACKAGES} packages")

    def url(self, name: str, version: str, url: str, files: Iterable[File], *, subdirectory: str = "") -> Pin:
        """A package that is a file somewhere.

        Raises:
            DetectError: An URL that is not allowed.
        """
        hashes = sorted({file.hash for file in files if file.hash})
        fragment = f"#subdirectory={subdirectory}" if subdirectory else ""
        line = self._line(f"{name} @ {url.partition('#')[0]}{fragment}", name)
        known = tuple(File(self.file({"url": url}, name).name, hash_, url) for hash_ in hashes)
        return Pin(name, version, known, line=" ".join((line, *(f"--hash={hash_}" for hash_ in hashes))))

    def git(self, name: str, version: str, url: str, commit: str, *, subdirectory: str = "") -> Pin:
        """A package that is a commit of a git repository.

        Raises:
            DetectError: An URL that is not allowed, or no commit.
        """
        if not _COMMIT.match(commit):
            self.document.fail(f"locks {name} to '{show(commit)}', which is no full git commit", name)
        fragment = f"#subdirectory={subdirectory}" if subdirectory else ""
        return Pin(name, version, line=self._line(f"{name} @ git+{url}@{commit}{fragment}", name))

    def local(self, name: str, path: str, *, editable: bool = False) -> Pin:
        """A package that is a folder or an archive of the repository.

        Raises:
            DetectError: It is outside, or not there.
        """
        folder = self.document.path.rpartition("/")[0]
        inside = f"{folder}/{path}" if folder and not path.startswith(("/", "~")) else path
        return Pin(name, local=local_project(self.repo, inside, self.document.at(name), editable=editable))

    def _line(self, text: str, name: str) -> str:
        line = clean_requirement(text, self.document.at(name))
        if isinstance(line, Local):
            self.document.fail(f"takes {name} from a path", name)
        return line

    def result(self, *, project: bool = True, asked: Iterable[str] | None = None, notes: Iterable[str] = ()) -> Locked:
        """All pins, sorted by how each one can be installed; see `Locked` for the arguments."""
        packages: list[LockedPackage] = []
        open_: list[str] = []
        build: list[str] = []
        indexes: list[str] = []
        locals_: list[Local] = []
        unresolved: list[str] = []
        for _, pin in sorted(self.pins.items()):
            hashes = tuple(sorted({file.hash for file in pin.files if file.hash}))
            what = f"{pin.name}=={pin.version}" if pin.version else pin.name
            exact = " ".join((what, *(f"--hash={hash_}" for hash_ in hashes)))
            fitting = [file for file in pin.files if file.hash and self.target.fits(file.name)]
            if pin.local is not None:
                locals_.append(pin.local)
            elif pin.index:
                indexes.append(pin.index)
                build.append(exact)
                unresolved.append(pin.name)
            elif fitting and pin.version:
                url = fitting[0].url if pin.line else ""
                known = tuple(sorted({file.hash for file in fitting}))
                packages.append(LockedPackage(pin.name, pin.version, known, url))
            elif pin.line:
                build.append(pin.line)
                unresolved.append(pin.name)
            elif all(file.name for file in pin.files) and hashes:
                build.append(exact)
                unresolved.append(pin.name)
            else:
                open_.append(exact)
        said = list(notes)
        if indexes:
            said.append(f"packages also from {', '.join(show(url) for url in dict.fromkeys(indexes))}, by the build")
        if bare := [line for line in open_ if "--hash" not in line]:
            said.append(f"no sha256 of {_few(bare)}: what the index has now is taken")
        names = tuple(package.name for package in packages)
        return Locked(
            path=self.document.path,
            lock=Lock(
                ecosystem="pypi",
                origin=self.document.path,
                python=self.target.python.version,
                platform=self.target.platform,
                packages=tuple(packages),
                layers=(names,) if names else (),
                unresolved=tuple(unresolved),
            ),
            open=tuple(open_),
            build=tuple(build),
            indexes=tuple(dict.fromkeys(indexes)),
            locals=tuple(locals_),
            project=project,
            asked=tuple(sorted(self.pins if asked is None else self.pins.keys() & set(asked))),
            notes=tuple(said),
        )


def host_of(url: str) -> str:
    """The host of a URL, "" for a malformed one."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def checked_hash(value: Any) -> str:
    """A SHA-256 as `sha256:…`; "" for any other kind."""
    text = value.lower() if isinstance(value, str) else ""
    return text if _SHA256.match(text) else ""


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def _few(lines: list[str]) -> str:
    return ", ".join(lines[:5]) + (f" and {len(lines) - 5} more" if len(lines) > 5 else "")

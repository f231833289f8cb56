"""Buildpacks: one folder for each ecosystem, loaded from a search path. docs/buildpacks.md describes the format."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from hpcbinder.errors import DetectError, HpcbinderError, UsageError
from hpcbinder.model import PackRef, Stage
from hpcbinder.plan.draft import WORD, Draft, read_pack_file
from hpcbinder.plan.repo import Repo, parse_toml
from hpcbinder.plan.tree import show

API = 1
"""Version of the folder format this hpcbinder reads."""

DESCRIPTION = "buildpack.toml"
PROGRAM = "pack.py"


@dataclass(frozen=True)
class PackFile:
    """A file of the repository that a pack reads.

    Attributes:
        name: Its name (`apt.txt`).
        root_only: It counts in the root only, and not at all beside a binder folder.
        always: It counts also where other packs were chosen, in which its pack then takes part.
    """

    name: str
    root_only: bool
    always: bool = False


@dataclass(frozen=True)
class Refusal:
    """A file that asks for what no pack can do.

    Attributes:
        file: The file.
        matches: If given, only a file in which this is found (multi-line regular expression) is refused.
        unless: With one of these config files beside it, the file is only reported as unused.
        message: What is wrong, after the file's name.
        hint: The way out.
    """

    file: PackFile
    matches: re.Pattern[str] | None
    unless: tuple[str, ...]
    message: str
    hint: str


@dataclass(frozen=True)
class StepTemplate:
    """A `[[step]]` of a declarative pack: added when the file `when` is there."""

    when: str
    what: str
    stage: Stage
    reason: str
    script: str
    reads: tuple[str, ...]
    env: Mapping[str, str]
    caches: tuple[str, ...]
    system: tuple[str, ...]
    runs_repository_code: bool
    into_repo: bool


@dataclass(frozen=True)
class Pack:
    """One buildpack.

    Attributes:
        name: `[a-z0-9-]+`; the first of a name on the search path is taken.
        version: Raise it when what the pack does changes.
        summary: One line for a person.
        order: Packs plan in this order, those of equal order by name.
        folder: Where it lies.
        origin: `built-in`, or the folder.
        files: What it reads.
        refusals: What it refuses.
        steps: What it does without code.
        alone: Where it finds its file, no other pack takes part.
    """

    name: str
    version: str
    summary: str
    order: int
    folder: Path
    origin: str
    files: tuple[PackFile, ...]
    refusals: tuple[Refusal, ...]
    steps: tuple[StepTemplate, ...]
    alone: bool = False

    @property
    def ref(self) -> PackRef:
        """What a plan says of it."""
        return PackRef(self.name, self.version, self.origin)

    def find(self, repo: Repo, file: PackFile) -> str | None:
        """Path of one of its files in a repository, None where it does not count or does not exist."""
        return repo.root_config(file.name) if file.root_only else repo.config(file.name)

    def plan(self, repo: Repo, draft: Draft) -> None:
        """Write this pack's part of a plan.

        Raises:
            DetectError: The repository asks wrongly, or the pack itself is broken (says which).
        """
        for template in self.steps:
            self._declared(template, repo, draft)
        if (self.folder / PROGRAM).is_file():
            self._call("plan", repo, draft)

    def prefer(self, repo: Repo, draft: Draft) -> None:
        """Say what would suit this pack, before any pack plans: its `prefer`, if it has one.

        Raises:
            DetectError: As `plan`.
        """
        if (self.folder / PROGRAM).is_file():
            self._call("prefer", repo, draft)

    def _call(self, what: str, repo: Repo, draft: Draft) -> None:
        try:
            function = _function(self.folder, self.name, what)
            if function is not None:
                function(repo, draft)
        except HpcbinderError:
            raise
        except Exception as error:
            raise DetectError(
                f"buildpack {self.name} failed: {type(error).__name__}: {show(str(error))}",
                where=_where(error, self.folder),
            ) from error

    def _declared(self, template: StepTemplate, repo: Repo, draft: Draft) -> None:
        trigger = repo.config(template.when)
        if trigger is None:
            return
        repo.read_text(trigger)
        reads = [path for name in template.reads if (path := repo.config(name)) is not None]
        draft.used(trigger, template.reason)
        if template.system:
            draft.want_system(template.system, f"{self.name}: {template.reason}")
        draft.add_step(
            template.stage,
            template.what,
            template.reason,
            template.script,
            reads=reads,
            data={"config-dir": repo.binder_dir or "."},
            env=template.env,
            caches=template.caches,
            runs_repository_code=template.runs_repository_code,
            into_repo=template.into_repo,
        )


def built_in_folder() -> Path:
    """Where the packs are that come with hpcbinder."""
    return Path(__file__).resolve().parent.parent / "buildpacks"


def load_packs(
    search_path: Sequence[Path] = (), *, named_by: str | None = None, skipped: Callable[[Path], None] | None = None
) -> list[Pack]:
    """Find the buildpacks. Runs none of their code.

    Args:
        search_path: Folders that hold one folder per pack, most important first; the built-in packs come last. A folder
            that does not exist holds none.
        named_by: Where somebody named these folders: then they must be there.
        skipped: Gets each folder in them that was left out because it describes no pack.

    Returns:
        The first pack of each name, in the order they plan.

    Raises:
        UsageError: A folder that somebody named is not there, or is itself a pack.
        DetectError: A malformed pack, with file and line.
    """
    if named_by is not None:
        _check_named(search_path, named_by)
    packs: dict[str, Pack] = {}
    for place in (*search_path, built_in_folder()):
        here: dict[str, Pack] = {}
        origin = "built-in" if place == built_in_folder() else ""
        for folder in _folders(place, skipped):
            pack = _load(folder, origin or str(folder))
            if pack.name in here:
                raise DetectError(f"buildpack {pack.name!r} is in {here[pack.name].folder} too", where=str(folder))
            here[pack.name] = pack
        packs = {**here, **packs}
    return sorted(packs.values(), key=lambda pack: (pack.order, pack.name))


def _check_named(search_path: Sequence[Path], named_by: str) -> None:
    for place in search_path:
        shown = show(str(place))
        if (place / DESCRIPTION).is_file():
            hint = f"name the folder it is in: {show(str(place.parent))}"
            raise UsageError(f"{shown} is a buildpack, not a folder of them", where=named_by, hint=hint)
        if not place.is_dir():
            raise UsageError(f"no folder of buildpacks {shown}", where=named_by, hint="see buildpacks.path")


def _folders(place: Path, skipped: Callable[[Path], None] | None) -> list[Path]:
    try:
        if not place.is_dir():
            return []
        found = []
        for folder in sorted(place.iterdir()):
            if (folder / DESCRIPTION).is_file():
                found.append(folder)
            elif skipped is not None and folder.is_dir() and not folder.name.startswith((".", "_")):
                skipped(folder)
        return found
    except OSError as error:
        raise DetectError(
            f"a folder of buildpacks cannot be read: {error.strerror}",
            where=show(str(error.filename or place)),
            hint="see buildpacks.path in hpcbinder config",
        ) from error


def _load(folder: Path, origin: str) -> Pack:
    path = folder / DESCRIPTION
    text = read_pack_file(folder, DESCRIPTION)
    table = _Table(parse_toml(text, str(path)), path, text, "")
    api = table.take("api", int)
    if api != API:
        raise table.error("api", f"api is {api}, this hpcbinder reads {API}")
    name = table.take("name", str)
    if not WORD.match(name):
        raise table.error("name", f"name {name!r} is not [a-z0-9-]+")
    pack = Pack(
        name=name,
        version=table.take("version", str),
        summary=table.take("summary", str),
        order=table.take("order", int, 50),
        folder=folder,
        origin=origin,
        files=tuple(_file(entry, "name") for entry in table.tables("file", finish=True)),
        refusals=tuple(_refusal(entry) for entry in table.tables("refuse")),
        steps=tuple(_step(entry, folder) for entry in table.tables("step")),
        alone=table.take("alone", bool, False),
    )
    table.finish()
    if not re.match(r"[0-9A-Za-z.+-]{1,32}\Z", pack.version):
        raise table.error("version", f"version {pack.version!r} is not [0-9A-Za-z.+-]+")
    return pack


def _file(table: _Table, key: str) -> PackFile:
    name = table.take(key, str)
    if not name or "/" in name or name in (".", "..") or not name.isprintable():
        raise table.error(key, f"{key} is the name of a file, without a folder")
    always = key == "name" and table.take("always", bool, False)
    file = PackFile(name, table.take("root-only", bool, False), always)
    if key == "name":
        table.finish()
    return file


def _refusal(table: _Table) -> Refusal:
    file = _file(table, "file")
    pattern = table.take("matches", str, "")
    try:
        matches = re.compile(pattern, re.MULTILINE) if pattern else None
    except re.error as error:
        raise table.error("matches", f"not a regular expression: {error}") from None
    unless = table.strings("unless")
    refusal = Refusal(file, matches, unless, table.take("message", str), table.take("hint", str))
    table.finish()
    return refusal


def _step(table: _Table, folder: Path) -> StepTemplate:
    stages = [s.value for s in Stage if s not in (Stage.SERVER, Stage.CONTENT)]
    stage = table.take("stage", str)
    if stage not in stages:
        raise table.error("stage", f"stage {stage!r} is not one of {', '.join(stages)}")
    when = table.take("when", str)
    env = table.take("env", dict, {})
    if not all(isinstance(value, str) for value in env.values()):
        raise table.error("env", "env holds something that is not a string")
    template = StepTemplate(
        when=when,
        what=table.take("name", str),
        stage=Stage(stage),
        reason=table.take("reason", str),
        script=read_pack_file(folder, table.take("script", str)),
        reads=table.strings("reads") or (when,),
        env=env,
        caches=table.strings("caches"),
        system=table.strings("system"),
        runs_repository_code=table.take("runs-repository-code", bool, False),
        into_repo=table.take("into-repo", bool, False),
    )
    table.finish()
    return template


_REQUIRED = object()


class _Table:
    """A TOML table that is read key by key; what nobody asked for is a mistake, said with its line."""

    def __init__(self, values: Mapping[str, Any], path: Path, text: str, header: str, index: int = 0) -> None:
        self._values = dict(values)
        self._path = path
        self._text = text
        self._header = header
        self._index = index

    def take(self, key: str, kind: type, default: Any = _REQUIRED) -> Any:
        value = self._values.pop(key, default)
        if value is _REQUIRED:
            raise self.error("", f"{self._header and f'[[{self._header}]] '}has no {key!r}".lstrip())
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(key, f"{key} is not a {_KINDS[kind]}")
        if isinstance(value, str) and default is _REQUIRED and not value.strip():
            raise self.error(key, f"{key} is empty")
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        value = self.take(key, list, [])
        if not all(isinstance(entry, str) for entry in value):
            raise self.error(key, f"{key} is not a list of strings")
        return tuple(value)

    def tables(self, key: str, *, finish: bool = False) -> list[_Table]:
        value = self.take(key, list, [])
        if not all(isinstance(entry, dict) for entry in value):
            raise self.error(key, f"{key} is not a list of tables ([[{key}]])")
        return [_Table(entry, self._path, self._text, key, i) for i, entry in enumerate(value)]

    def finish(self) -> None:
        for key in self._values:
            raise self.error(key, f"unknown key {key!r}")

    def error(self, key: str, message: str) -> DetectError:
        return DetectError(f"malformed buildpack: {message}", where=f"{self._path}:{self._line(key)}")

    def _line(self, key: str) -> int:
        """Line of a key, as well as the text shows it: the parser does not tell."""
        lines = self._text.split("\n")
        first = 0
        if self._header:
            headers = [i for i, line in enumerate(lines) if re.match(rf"\s*\[\[\s*{self._header}\s*\]\]", line)]
            first = headers[self._index] if self._index < len(headers) else 0
        if key:
            for i in range(first, len(lines)):
                if re.match(rf"\s*(\[+\s*)?[\"']?{re.escape(key)}[\"']?\s*[=.\]]", lines[i]):
                    return i + 1
        return first + 1


_KINDS: dict[type, str] = {str: "string", int: "number", bool: "boolean", list: "list", dict: "table"}


def _function(folder: Path, name: str, what: str) -> Callable[[Repo, Draft], None] | None:
    """`plan` or `prefer` of a pack's `pack.py`; it need not have the latter. The folder becomes a package of a name
    nobody else has, so that the file may import its siblings (`from .x import y`) and no search path of Python
    changes."""
    package = f"_hpcbinder_pack_{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}"
    module = sys.modules.get(f"{package}.pack")
    if module is None:
        holder = ModuleType(package)
        holder.__path__ = [str(folder)]
        sys.modules[package] = holder
        spec = importlib.util.spec_from_file_location(f"{package}.pack", folder / PROGRAM)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module.__name__] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module.__name__]
            raise
    function = getattr(module, what, None)
    if not callable(function):
        if what == "prefer":
            return None
        raise DetectError(f"buildpack {name}: has no function {what}(repo, draft)", where=str(folder / PROGRAM))
    return function  # type: ignore[no-any-return]


def _where(error: Exception, folder: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).parent == folder:
            return f"{frame.filename}:{frame.lineno}"
    return str(folder / PROGRAM)

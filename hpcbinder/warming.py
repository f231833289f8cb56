"""Squashing ahead what many repositories ask for: `hpcbinder warm`. No image, no kernel.

Each file stands for a repository that has nothing else, and is planned as such: what is squashed is what the images of
people who ask for the same would be made of, by the very same steps.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpcbinder.build import Request, plan_source
from hpcbinder.catalog import Catalog
from hpcbinder.config import Config
from hpcbinder.errors import DetectError, HpcbinderError, UsageError
from hpcbinder.lock import read_locks
from hpcbinder.model import Lock, LockedPackage
from hpcbinder.plan import SUITES
from hpcbinder.progress import Clock, Reporter
from hpcbinder.runtime import choose_compression
from hpcbinder.squashfs import Options
from hpcbinder.text import one_line

STDIN = "-"
_LIMIT = 64 << 20
"""Bytes of a file."""
_DEEPEST = 10
"""Requirements files that name each other."""

_KINDS = (
    (r"uv\.lock", "uv.lock", ("pyproject.toml",)),
    (r"poetry\.lock", "poetry.lock", ("pyproject.toml",)),
    (r"Pipfile\.lock", "Pipfile.lock", ("Pipfile",)),
    (r"Pipfile", "Pipfile", ()),
    (r"pylock(\.[^.]+)?\.toml", "pylock.toml", ()),
    (r"pixi\.lock", "pixi.lock", ("pixi.toml", "pyproject.toml")),
    (r"(.*\.)?conda-lock\.ya?ml", "conda-lock.yml", ()),
    (r"conda-linux-64\.lock", "conda-linux-64.lock", ()),
    (r"conda-linux-aarch64\.lock", "conda-linux-aarch64.lock", ()),
    (r".+\.ya?ml", "environment.yml", ()),
    (r"apt\.txt", "apt.txt", ()),
    (r".+\.(txt|in)", "requirements.txt", ()),
)
"""(file's name, what a repository calls it, what belongs to it)."""

_INCLUDE = re.compile(r"^\s*(?:-r|-c|--requirement|--constraint)[ \t=]*(?P<file>[^\s#]+)", re.MULTILINE)


@dataclass(frozen=True)
class Favourites:
    """What is to be squashed ahead.

    Attributes:
        files: Requirements, locks, environments; `-` for requirements on standard input.
        bases: Debian suites; () for those that images are made on here (`build.suite`, `bases.suites`).
        pythons: `X.Y`; () for each base's own.
        refresh: Ask the package index anew for what was found before.
    """

    files: tuple[str, ...]
    bases: tuple[str, ...] = ()
    pythons: tuple[str, ...] = ()
    refresh: bool = False


@dataclass(frozen=True)
class Part:
    """A base, a notebook server, or the packages of one file on one base.

    Attributes:
        file: As it was named; "" for what several files share.
        what: It, for a person.
        new: Layers that were made now.
        there: Layers that were there already.
        refused: Package, or "" for all -> why it cannot be had.
        left: Why nothing of it was squashed ahead; "" if it was.
    """

    file: str
    what: str
    new: int = 0
    there: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)
    left: str = ""


@dataclass
class Warmed:
    """What was done.

    Attributes:
        store: Where it is kept.
        compression: With what layers are compressed: images with another compression have none of them.
        parts: One by one.
        failed: The exit code of the first thing that was refused, 0 if nothing was.
    """

    store: Path
    compression: str
    parts: list[Part] = field(default_factory=list)
    failed: int = 0

    @property
    def new(self) -> int:
        """Layers that were made now."""
        return sum(part.new for part in self.parts)

    @property
    def there(self) -> int:
        """Layers that were there already."""
        return sum(part.there for part in self.parts)

    @property
    def refused(self) -> int:
        """Packages, or whole files, that cannot be had."""
        return sum(len(part.refused) for part in self.parts)


@dataclass(frozen=True)
class _Ground:
    """What images stand on: a suite, and `X.Y` of an interpreter if it is not to be the suite's own."""

    suite: str
    python: str = ""

    def __str__(self) -> str:
        return f"debian:{self.suite}, Python {self.python or SUITES[self.suite].python}"


@dataclass(frozen=True)
class _Task:
    """A file on one base.

    Attributes:
        files: Name in the repository that stands for it -> content; none for what is not squashed ahead.
        bound: This base was asked for: that the file does not fit it is an error.
    """

    file: str
    files: Mapping[str, bytes]
    ground: _Ground
    bound: bool


def site_store(config: Config) -> Config:
    """The configuration with the first of the sites' stores that may be written here as the store, or as it was.

    A store that was named on the command line stays.
    """
    if config.origins.get("store.path") == "flag":
        return config
    for path in config.store.site:
        if path.is_dir() and os.access(path, os.R_OK | os.W_OK | os.X_OK):
            below = tuple(other for other in config.store.site if other != path)
            return replace(config, store=replace(config.store, path=path, site=below))
    return config


def warm(wish: Favourites, config: Config, catalog: Catalog, reporter: Reporter, *, stdin: bytes = b"") -> Warmed:
    """Have squashed what some files ask for, as far as it can be had. Doing it again does what is missing.

    Args:
        config: Its store is the catalog's (`site_store`).
        stdin: What `-` stands for.

    Raises:
        UsageError: A file is none that says what is wanted.
        CatalogError, ConvertError: The store cannot be written.
    """
    grounds = _grounds(wish, config)
    tasks = [task for file in wish.files for task in _tasks(file, wish, grounds, stdin)]
    chosen = choose_compression(config.build.compression, config)
    reporter.phase("convert", f"compressing with {chosen.name}: {chosen.why}")
    warmed = Warmed(catalog.path, chosen.name)
    served: set[str] = set()
    unfit: list[tuple[_Task, HpcbinderError]] = []
    with catalog.temporary() as scratch:
        for task in tasks:
            if not task.files:
                left = "wheels on top of a conda environment are squashed with the image"
                warmed.parts.append(Part(task.file, str(task.ground), left=left))
                continue
            try:
                _warm(task, wish, config, chosen.options, catalog, scratch, warmed, reporter)
                served.add(task.file)
            except DetectError as error:
                unfit.append((task, error))
            except HpcbinderError as error:
                if error.exit_code not in (3, 5, 10):
                    raise
                _refuse(warmed, task, error)
    for task, misfit in unfit:
        if task.bound or task.file not in served:
            _refuse(warmed, task, misfit)
        else:
            left = f"does not fit: {misfit.message}"
            warmed.parts.append(Part(task.file, str(task.ground), left=left))
    return warmed


def _refuse(warmed: Warmed, task: _Task, error: HpcbinderError) -> None:
    warmed.failed = warmed.failed or error.exit_code
    warmed.parts.append(Part(task.file, str(task.ground), refused={"": str(error)}))


def _warm(
    task: _Task,
    wish: Favourites,
    config: Config,
    options: Options,
    catalog: Catalog,
    scratch: Path,
    warmed: Warmed,
    reporter: Reporter,
) -> None:
    from hpcbinder.builders.assembling import assembler, attainable
    from hpcbinder.builders.in_engine import workshops_here

    suite, python = task.ground.suite, task.ground.python
    config = replace(
        config,
        build=replace(config.build, suite=suite),
        bases=replace(config.bases, suites=(suite,)),
    )
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name) / "favourites"
        folder.mkdir()
        for path, content in task.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        if python:
            (folder / "runtime.txt").write_text(f"python-{python}\n")
        reporter.phase("plan", f"{one_line(task.file, 200)} on {task.ground}")
        work = Path(name) / "work"
        work.mkdir()
        request = Request(source=str(folder), refresh=wish.refresh)
        _, plan = plan_source(request, config, work, reporter, Clock())
        place: dict[str, Any] = {"catalog": catalog, "scratch": Path(name), "config": config, "reporter": reporter}
        place["workshops"] = workshops_here(config, catalog, Path(name), reporter)
        plan = attainable(plan, options=options, **place)
        squashing = assembler(plan.base.architecture, options=options, **place)
        for prepared in squashing.prepare(plan):
            found = Part(
                "" if prepared.shared else task.file,
                prepared.what if prepared.shared else f"{prepared.what} on {task.ground}",
                prepared.new,
                prepared.total - prepared.new - len(prepared.refused),
                {package: str(error) for package, error in prepared.refused.items()},
                prepared.left,
            )
            for error in prepared.refused.values():
                warmed.failed = warmed.failed or error.exit_code
            if not prepared.shared or found.what not in {part.what for part in warmed.parts if not part.file}:
                warmed.parts.append(found)


def _grounds(wish: Favourites, config: Config) -> list[_Ground]:
    """What images stand on that are meant.

    Raises:
        UsageError: No such suite or Python.
    """
    for suite in wish.bases:
        if suite not in SUITES:
            raise UsageError(f"no base of Debian {one_line(suite, 80)!r}", hint=f"there are {', '.join(SUITES)}")
    for python in wish.pythons:
        if not re.fullmatch(r"3\.\d{1,2}", python):
            raise UsageError(f"no version of Python: {one_line(python, 80)!r}", hint="write X.Y, such as 3.11")
    suites = wish.bases or tuple(dict.fromkeys((config.build.suite, *config.bases.suites)))
    if not wish.pythons:
        return [_Ground(suite) for suite in suites]
    if wish.bases:
        return [_Ground(suite, python) for suite in suites for python in wish.pythons]
    # On the base that has it, as a repository that asks for it would get; else on the first one.
    own = {SUITES[suite].python: suite for suite in reversed(suites)}
    return [_Ground(own.get(python, suites[0]), python) for python in wish.pythons]


def _tasks(file: str, wish: Favourites, grounds: Sequence[_Ground], stdin: bytes) -> Iterator[_Task]:
    """A file on each base.

    Raises:
        UsageError: It cannot be read, or is none that says what is wanted.
    """
    if file == STDIN:
        files: Mapping[str, bytes] = {"requirements.txt": stdin}
    elif file.endswith(".json"):
        yield from _of_locks(file)
        return
    else:
        files = repository_files(Path(file))
    for ground in grounds:
        yield _Task(file, files, ground, bool(wish.bases or wish.pythons))


def _of_locks(file: str) -> Iterator[_Task]:
    """An image's locks, each on the base that it is for."""
    locks = read_locks(Path(file))
    conda = any(lock.ecosystem == "conda" for lock in locks)
    for lock in locks:
        suite = next((name for name, suite in SUITES.items() if lock.platform.endswith(_glibc(suite.glibc))), None)
        if suite is None:
            raise UsageError(
                f"a lock for {one_line(lock.platform, 80)} cannot be squashed ahead", where=one_line(file, 200)
            )
        if not conda:
            yield _Task(file, {"requirements.txt": _lines(lock).encode()}, _Ground(suite, lock.python), True)
        elif lock.ecosystem == "conda":
            name = "conda-linux-64.lock" if lock.platform.startswith("x86_64-") else "conda-linux-aarch64.lock"
            yield _Task(file, {name: _explicit(lock).encode()}, _Ground(suite), True)
        else:
            yield _Task(file, {}, _Ground(suite), True)


def _glibc(version: str) -> str:
    return f"-manylinux_{version.replace('.', '_')}"


def _lines(lock: Lock) -> str:
    return "".join(f"{_line(package)}\n" for package in lock.packages)


def _explicit(lock: Lock) -> str:
    """Conda packages as an explicit list."""
    lines = (f"{package.url}#{package.hashes[0].removeprefix('sha256:')}\n" for package in lock.packages)
    return f"@EXPLICIT\n{''.join(lines)}"


def _line(package: LockedPackage) -> str:
    what = f"{package.name} @ {package.url}" if package.url else f"{package.name}=={package.version}"
    return " ".join((what, *(f"--hash={value}" for value in package.hashes)))


def repository_files(path: Path) -> dict[str, bytes]:
    """Name in a repository -> content: a file, and what belongs to it.

    Raises:
        UsageError: Its name does not say what it is, or it cannot be read.
    """
    kind = next((kind for kind in _KINDS if re.fullmatch(kind[0], path.name)), None)
    if kind is None:
        raise UsageError(
            "says by its name neither what it is nor what it is for",
            where=one_line(str(path), 200),
            hint="requirements (.txt, .in), pylock.toml, uv.lock, environment.yml, an image's manifest.json, or -",
        )
    _, name, partners = kind
    found = {name: _read(path)}
    found |= {other: _read(path.with_name(other)) for other in partners if path.with_name(other).is_file()}
    if name == "requirements.txt":
        _include(found, path.parent, Path(), found[name], _DEEPEST)
    return found


def _include(found: dict[str, bytes], folder: Path, below: Path, content: bytes, deeper: int) -> None:
    """Add the files that requirements name, where they lie beside or below."""
    for match in _INCLUDE.finditer(content.decode("utf-8", "replace")):
        name = os.path.normpath(below / match["file"])
        if "://" in match["file"] or name.startswith(("/", "..")) or name in found or not deeper:
            continue  # whoever reads the requirements says what is wrong with it
        if (folder / name).is_file():
            found[name] = _read(folder / name)
            _include(found, folder, Path(name).parent, found[name], deeper - 1)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=one_line(str(path), 200)) from None
    if len(content) > _LIMIT:
        raise UsageError(f"is longer than {_LIMIT >> 20} MiB", where=one_line(str(path), 200))
    return content

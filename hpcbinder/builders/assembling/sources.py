"""What a step builds from source, as wheels: then it joins the others, squashed and merged.

The step of an engine lets uv find, fetch and build all at once. Here each source is fetched first and built alone, once
(`hpcbinder.wheels`); what it turns out to depend on is resolved with what is locked already.
"""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from hpcbinder.builders.assembling.finding import Finder, Unbuildable, name_of, parse
from hpcbinder.builders.assembling.layer import Layer
from hpcbinder.builders.assembling.tree import layer_tar
from hpcbinder.builders.assembling.venv import venv
from hpcbinder.builders.assembling.workshops import Workshops
from hpcbinder.catalog import make_folder, remove_tree
from hpcbinder.config import SiteConfig, SourceConfig
from hpcbinder.contract import EPOCH, STEP_DIR
from hpcbinder.engine import unpack
from hpcbinder.errors import BuildError, DetectError, RunError
from hpcbinder.model import Checkout, Lock, LockedPackage, Plan, Wanted
from hpcbinder.plan import marker_environment, write_step
from hpcbinder.progress import Reporter
from hpcbinder.runtime import Workshop
from hpcbinder.squashfs import Image, Options, write_layer
from hpcbinder.text import one_line
from hpcbinder.wheels import (
    BUILD_PREFIX,
    BuiltWheel,
    InterpreterSource,
    Place,
    Source,
    Target,
    WheelBuilder,
    WheelStore,
)

if TYPE_CHECKING:
    from packaging.requirements import Requirement

LISTED = "/opt/hpcbinder/packages/python.json"
"""What an environment holds, in the image."""

_ROUNDS = 40
_LIMIT = 64 << 20


@dataclass(frozen=True)
class Installed:
    """What a step installs.

    Attributes:
        layers: Squashed wheels, the lowest first.
        listed: All that the environment holds then: text of `LISTED`.
    """

    layers: tuple[Path, ...]
    listed: str


@dataclass
class _State:
    """What is known so far of what a step installs.

    Attributes:
        sources: Lines that name something to build.
        index: Requirement lines for the index.
        built: Package -> its wheel, and where that came from (`Source.url`).
    """

    sources: list[Requirement]
    index: list[str]
    hashes: dict[str, frozenset[str]] = field(default_factory=dict)
    built: dict[str, tuple[BuiltWheel, str]] = field(default_factory=dict)


class SourcePackages:
    """Builds what steps install from source.

    Args:
        folder: Where wheels that were built here, and their sources, are kept: this user's own, never a site's.
        resolve: Finds versions of what comes from the index.
        wheels: Squashed wheels of the index.
        built: Squashed wheels that were built here, in `folder`.
        workshops: What runs builds.
        site: Package index, certificates, proxies.
        source: From where git requirements may come.
        options: How layers are squashed.
        scratch: Folder for temporary files, on the file system of `folder`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        resolve: Callable[[Wanted], Lock],
        wheels: WheelStore,
        built: WheelStore,
        workshops: Workshops,
        site: SiteConfig,
        source: SourceConfig,
        options: Options,
        scratch: Path,
        reporter: Reporter,
    ) -> None:
        self._folder = folder
        self._resolve = resolve
        self._wheels = wheels
        self._built = built
        self._site = site
        self._source = source
        self._options = options
        self._scratch = scratch
        self._reporter = reporter
        self._workshops = workshops
        self._builder = WheelBuilder(folder, resolve=resolve, wheels=wheels, scratch=scratch, reporter=reporter)

    def install(
        self,
        number: int,
        plan: Plan,
        checkout: Checkout,
        *,
        target: Target,
        system: Sequence[Layer],
        below: Sequence[Layer],
        interpreter: InterpreterSource,
    ) -> Installed:
        """Have what a step installs, as layers.

        Args:
            number: Of the step in the plan; its assembly has `sources`.
            target: What it is installed for.
            system: The layers that builds stand on: the base, and what the system was given.
            below: All layers below, the topmost with the environment as it is.
            interpreter: Makes the target's bytecode.

        Raises:
            Unbuildable: An engine may do it.
            BuildError: A build failed, or what was built needs other versions than were resolved before.
            FetchError: A source or a package cannot be had.
            ConvertError: A layer cannot be written or is damaged.
        """
        room = self._scratch / f"sources-{secrets.token_hex(4)}"
        try:
            room.mkdir()
            make_folder(self._folder)
            try:
                return _Installing(self, number, plan, checkout, target, system, below, interpreter, room).done()
            except BuildError as error:
                if isinstance(error, Unbuildable) or not self._workshop(number, plan).is_engine:
                    raise
                # Which has a network for whole steps, and what a build has always had there.
                raise Unbuildable(error.message, where=error.where, hint=error.hint) from None
        except Unbuildable as error:
            error.step = number
            raise
        except RunError as error:
            what = ", ".join(_named(plan, number)[:5])
            unbuildable = Unbuildable(f"{what} has to be built, and {error.message}", hint=error.hint)
            unbuildable.step = number
            raise unbuildable from None
        except OSError as error:
            raise BuildError(f"sources cannot be kept: {error.strerror or error}", where=str(self._folder)) from error
        finally:
            remove_tree(room)

    def _workshop(self, number: int, plan: Plan) -> Workshop:
        """What runs builds of a step; RunError if nothing does."""
        return self._workshops.any(plan.base, f"{', '.join(_named(plan, number)[:5])} has to be built")


class _Installing:
    """One step, while it is done."""

    def __init__(
        self,
        packages: SourcePackages,
        number: int,
        plan: Plan,
        checkout: Checkout,
        target: Target,
        system: Sequence[Layer],
        below: Sequence[Layer],
        interpreter: InterpreterSource,
        room: Path,
    ) -> None:
        self._packages = packages
        self._number = number
        self._plan = plan
        self._checkout = checkout
        self._step = plan.steps[number]
        self._target = target
        self._system = system
        self._below = below
        self._interpreter = interpreter
        self._room = room
        self._place_: Place | None = None
        self._prereleases = self._step.env.get("UV_PRERELEASE") == "allow"
        self._as_of = self._step.env.get("UV_EXCLUDE_NEWER", "")
        self._finder = Finder(
            packages._folder,
            room,
            packages._site,
            packages._source,
            packages._reporter,
            python=target.python,
            prereleases=self._prereleases,
            as_of=self._as_of,
        )
        self._environment = marker_environment(target.python, target.architecture)

    def done(self) -> Installed:
        assembly = self._step.assembly
        assert assembly is not None
        assert assembly.sources is not None
        sources = assembly.sources
        state = _State([], [])
        follow = bool(sources.together)
        for source in self._projects(sources.targets, follow=follow):
            self._build(source, state, follow=follow)
        for line in self._lines(*filter(None, [sources.alone])):
            self._alone(line, state)
        for line in self._lines(*sources.together):
            self._take(line, state)
        lock = self._follow(state) if state.index or state.sources else None
        return self._result(state, lock)

    def _alone(self, line: str, state: _State) -> None:
        """A line of which nothing else follows."""
        requirement, hashes = parse(line)
        if self._holds(requirement):
            self._build(self._finder.find(requirement, hashes), state, follow=False)

    def _take(self, line: str, state: _State) -> None:
        requirement, hashes = parse(line)
        if not self._holds(requirement):
            return
        if hashes:
            state.hashes[name_of(requirement)] = hashes
        if requirement.url:
            state.sources.append(requirement)
        else:
            state.index.append(line)

    def _follow(self, state: _State) -> Lock:
        """Build until nothing is missing; what comes from the index, all in all."""
        limits = tuple(line for line in self._limits() if " @ " not in line)
        for _ in range(_ROUNDS):
            while state.sources:
                requirement = state.sources.pop()
                if name_of(requirement) not in state.built:
                    self._build(
                        self._finder.find(requirement, state.hashes.get(name_of(requirement), frozenset())), state
                    )
            try:
                lock = self._packages._resolve(self._wanted(state, limits))
            except DetectError as error:
                message = f"what {', '.join(state.built)} needs does not fit the rest: {error.message}"
                raise Unbuildable(message if state.built else error.message, hint=error.hint) from None
            missing = [name for name in lock.unresolved if name not in state.built]
            if not missing:
                return lock
            for name in missing:
                self._build(self._sdist(name, state, limits), state)
        raise BuildError("what is built needs more and more packages that have to be built")

    def _wanted(self, state: _State, limits: tuple[str, ...]) -> Wanted:
        index = [line for line in state.index if name_of(parse(line)[0]) not in state.built]
        return Wanted(
            ecosystem="pypi",
            requirements=tuple(dict.fromkeys(index)),
            constraints=limits,
            elsewhere=tuple(sorted(state.built)),
            prereleases=self._prereleases,
            python=self._target.python,
            architecture=self._target.architecture,
            suite=self._plan.base.suite,
            source=f"{self._plan.source}#{self._plan.subdir}#built",
            as_of=self._as_of,
        )

    def _build(self, source: Source, state: _State, *, follow: bool = True) -> None:
        wheel = self._packages._builder.build(source, self._place())
        state.built[wheel.name] = (wheel, source.url)
        for text in wheel.requires if follow else ():
            try:
                requirement, _ = parse(text)
            except BuildError:
                raise BuildError(f"{wheel.name}: depends on {one_line(text, 100)}, which is no requirement") from None
            if not self._holds(requirement, extras=("",)):
                continue
            requirement.marker = None
            if requirement.url:
                state.sources.append(requirement)
            else:
                state.index.append(str(requirement))

    def _holds(self, requirement: Requirement, extras: Sequence[str] = ("",)) -> bool:
        marker = requirement.marker
        return marker is None or any(marker.evaluate({**self._environment, "extra": extra}) for extra in extras)

    def _sdist(self, name: str, state: _State, limits: Sequence[str]) -> Source:
        """A package that has no wheel, in the newest version that all who ask for it allow."""
        from packaging.requirements import Requirement

        whole = Requirement(name)
        for line in (*state.index, *limits):
            requirement, _ = parse(line)
            if name_of(requirement) == name and self._holds(requirement):
                whole.specifier &= requirement.specifier
                whole.extras |= requirement.extras
        return self._finder.find(whole, state.hashes.get(name, frozenset()))

    def _projects(self, targets: str, *, follow: bool) -> list[Source]:
        """The repository's own projects, from copies of what the step reads."""
        if not targets:
            return []
        folder = self._room / "step"
        folder.mkdir()
        packed = self._room / "step.tar"
        with packed.open("wb") as out:
            write_step(self._plan, self._checkout, self._number, out, folder="step", timestamp=EPOCH)
        with packed.open("rb") as file:
            identity = _digest(file)
        unpack(lambda out: _copy(packed, out), folder)
        found = []
        for line in self._step.data[targets].splitlines():
            _, path, extras = line.split("\t")
            if extras and follow:
                raise Unbuildable(f"{path} is wanted with extras, which only its build tells")
            place = folder / "step" / "repo" / path
            if place.is_file() and not path.endswith((".tar.gz", ".zip")):
                raise Unbuildable(f"{one_line(path, 100)} is no source archive")
            title = "the repository's project" if path == "." else one_line(path, 100)
            # As uv tells it of the copy that an engine's step installs.
            url = f"file://{quote(posixpath.normpath(f'{STEP_DIR}/work/source/{path}'))}"
            found.append(Source("", "", f"tree:{identity}:{path}", place, url=url, title=title))
        return found

    def _place(self) -> Place:
        if self._place_ is None:
            packages, target, plan = self._packages, self._target, self._plan
            if plan.python.origin != "debian":
                raise Unbuildable(f"packages are not built for a Python from elsewhere ({plan.python.origin})")
            unnamed = self._room / "environment.layer"
            entries = venv(BUILD_PREFIX, plan.python.executable, target.python)
            identity = write_layer(io.BytesIO(layer_tar(entries)), unnamed, packages._options)
            environment = unnamed.rename(self._room / f"{identity.removeprefix('sha256:')}-environment.squashfs")
            self._place_ = Place(
                [*(layer.path for layer in self._system), environment],
                [*(layer.identity for layer in self._system), identity],
                target,
                plan.base.suite,
                {name: value for name, value in self._step.env.items() if not name.startswith("UV_")},
                self._interpreter,
                lambda: packages._workshop(self._number, plan),
                self._as_of,
            )
        return self._place_

    def _result(self, state: _State, lock: Lock | None) -> Installed:
        packages, target = self._packages, self._target
        here = self._listed()
        found = [package for package in (lock.packages if lock else ()) if here.get(package.name) != package.version]
        built = []
        for wheel, url in state.built.values():
            if here.get(wheel.name) == wheel.version:
                continue
            package = LockedPackage(wheel.name, wheel.version, (f"sha256:{wheel.sha256}",), url)
            packages._built.adopt(package, target, wheel.filename)
            built.append(package)
        if others := sorted({package.name for package in (*found, *built)} & here.keys()):
            raise Unbuildable(
                f"what is built needs other versions of {', '.join(others[:5])} than were resolved before"
            )
        layers: list[Path] = []
        for store, some in ((packages._wheels, found), (packages._built, built)):
            if some:
                python = ".".join(target.python.split(".")[:2])
                one = Lock("pypi", self._step.name, python, target.platform, tuple(sorted(some, key=_by_name)), ())
                layers += store.layers(one, target, self._interpreter, scratch=packages._scratch)
        here |= {package.name: package.version for package in (*found, *built)}
        listed = [{"name": name, "version": here[name]} for name in sorted(here)]
        return Installed(tuple(layers), json.dumps(listed, separators=(",", ":")) + "\n")

    def _listed(self) -> dict[str, str]:
        """What the environment holds already."""
        for layer in reversed(self._below):
            with Image.open(layer.path) as image:
                node = image.lookup(LISTED)
                if node is not None and node.kind == "file":
                    with suppress(ValueError, KeyError, TypeError):
                        entries = json.loads(image.read(LISTED, _LIMIT))
                        return {str(entry["name"]): str(entry["version"]) for entry in entries}
        return {}

    def _lines(self, *names: str) -> list[str]:
        lines = [line.strip() for name in names for line in self._step.data.get(name, "").splitlines()]
        return [line for line in lines if line and not line.startswith("#")]

    def _limits(self) -> list[str]:
        assert self._step.assembly is not None
        assert self._step.assembly.sources is not None
        return list(dict.fromkeys(self._lines(*self._step.assembly.sources.limits)))


def _digest(file: BinaryIO) -> str:
    """SHA-256 (hex) of what is left of a file."""
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def _copy(packed: Path, out: BinaryIO) -> None:
    with packed.open("rb") as file:
        shutil.copyfileobj(file, out, 1 << 20)


def _by_name(package: LockedPackage) -> str:
    return package.name


def _named(plan: Plan, number: int) -> list[str]:
    """What a step builds, for a person, as far as its lines tell."""
    step = plan.steps[number]
    assert step.assembly is not None
    sources = step.assembly.sources
    assert sources is not None
    if sources.targets:
        return [
            line.split("\t")[1].replace(".", "the repository's project")
            for line in step.data[sources.targets].splitlines()
        ]
    return [step.reason.partition(": ")[2] or step.reason]

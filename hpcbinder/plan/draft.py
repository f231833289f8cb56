"""The plan while buildpacks write on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hpcbinder.errors import DetectError
from hpcbinder.model import (
    Assembly,
    Cache,
    Decision,
    Lock,
    OutsideImage,
    OwnDockerfile,
    Python,
    Stage,
    Step,
    Wanted,
    WantedConda,
    fingerprint,
)
from hpcbinder.plan.apart import check_apart
from hpcbinder.plan.foundation import Foundation, Stand, bootstrapped
from hpcbinder.plan.repo import Repo
from hpcbinder.plan.suites import OLDEST, served, too_old

WORD = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_ENV_NAME = re.compile(r"[A-Z_][A-Z0-9_]*\Z")
_DATA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_DEBIAN_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+\Z")
_FORBIDDEN_ENV = frozenset({"PATH", "HOME", "USER", "LOGNAME", "LD_PRELOAD"})


@dataclass(frozen=True)
class SystemPackage:
    """A Debian package that a buildpack wants.

    Attributes:
        name: Package name, without a version.
        version: Exact version, "" for the suite's.
        reason: Why, for a person.
        pack: Who wants it.
    """

    name: str
    version: str
    reason: str
    pack: str


class Resolver(Protocol):
    """Finds versions before anything is built (hpcbinder.lock has the one there is)."""

    def __call__(self, wanted: Wanted) -> Lock:
        """The exact versions of what is wanted, found without running any of it.

        Raises:
            DetectError: There are none that fit together.
        """

    def layered(self, lock: Lock) -> Lock:
        """A lock from elsewhere, in layers that environments made before have already."""


CondaResolver = Callable[[WantedConda], tuple[Lock, tuple[str, ...]]]
"""Finds conda packages (hpcbinder.conda has the one there is): what is wanted -> the lock, and what is to be said of
it. Raises DetectError where none fit together."""


@dataclass(frozen=True)
class Provided:
    """An environment at `/opt/env` that a pack makes whole, with its interpreter: others only add to it.

    Attributes:
        pack: Who makes it.
        path: The repository's file that says what is in it.
        packages: Python packages in it: normalised name (PEP 503) -> version.
        requirements: Text of a requirements file: what pip is to install into it. Its line numbers are those of `path`.
    """

    pack: str
    path: str
    packages: Mapping[str, str]
    requirements: str = ""


@dataclass
class Shared:
    """What all packs of one plan write on together."""

    pythons: tuple[Python, ...]
    python: Python
    architecture: str
    source: str
    resolver: Resolver | None = None
    conda: CondaResolver | None = None
    provided: Provided | None = None
    stand: Stand = bootstrapped
    foundation: Foundation | None = None
    locks: list[Lock] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    system: list[SystemPackage] = field(default_factory=list)
    system_taken: bool = False
    env: dict[str, str] = field(default_factory=dict)
    kernels: list[str] = field(default_factory=list)
    start: str | None = None
    asked: dict[str, set[str]] = field(default_factory=dict)
    outside: Callable[[str, str], str] | None = None
    own: OwnDockerfile | None = None

    def choose(self, python: Python) -> Foundation:
        """Take an interpreter, and find out what an image with it stands on.

        Raises:
            DetectError: It cannot be had.
        """
        if too_old(python.version):
            raise DetectError(
                f"Python {python.version} is too old for a notebook's kernel",
                hint=f"the oldest is {OLDEST}; there is Python {served(self.pythons)}",
            )
        self.foundation = self.stand(python, self.architecture)
        self.python = self.foundation.python
        return self.foundation


class Draft:
    """The plan so far, as one buildpack may change it. `pack.py` gets one of it.

    Attributes:
        pack: Name of the buildpack that writes.
        folder: The buildpack's folder.
    """

    def __init__(self, repo: Repo, shared: Shared, pack: str, folder: Path) -> None:
        self.pack = pack
        self.folder = folder
        self._repo = repo
        self._shared = shared

    @property
    def pythons(self) -> tuple[Python, ...]:
        """The interpreters an image can have here, most wanted first where the repository does not care."""
        return self._shared.pythons

    @property
    def python(self) -> Python:
        """The environment's interpreter, as chosen so far."""
        return self._shared.python

    @property
    def architecture(self) -> str:
        """What the image is for, as OCI names it (`amd64`)."""
        return self._shared.architecture

    def choose_python(self, python: Python) -> None:
        """Take another interpreter, one of `pythons`; the base it is in comes with it.

        Raises:
            DetectError: It cannot be had after all.
        """
        self._shared.choose(python)

    def resolve(
        self,
        requirements: Sequence[str],
        *,
        constraints: Sequence[str] = (),
        elsewhere: Collection[str] = (),
        prereleases: bool = False,
        keep: bool = True,
    ) -> Lock | None:
        """Find the exact versions of Python packages now, before anything is built. See `Wanted` for the arguments.

        Args:
            keep: Make the lock part of the plan; without, it goes into one that the pack adds itself.

        Returns:
            The lock, which is then part of the plan; None if nothing is to be resolved ahead (`--no-lock`): the build
            then finds the versions.

        Raises:
            DetectError: No versions fit together.
        """
        if self._shared.resolver is None:
            return None
        lock = self._shared.resolver(
            Wanted(
                ecosystem="pypi",
                requirements=tuple(requirements),
                constraints=tuple(constraints),
                elsewhere=tuple(sorted(elsewhere)),
                prereleases=prereleases,
                python=self.python.full,
                architecture=self._shared.architecture,
                suite=self.python.suite,
                source=self._shared.source,
            )
        )
        if keep:
            self._shared.locks.append(lock)
        return lock

    def add_lock(self, lock: Lock) -> Lock:
        """Make a lock that was read from a file of the repository part of the plan.

        Returns:
            The same in the layers it is to be unpacked in.
        """
        if self._shared.resolver is not None:
            lock = self._shared.resolver.layered(lock)
        self._shared.locks.append(lock)
        return lock

    @property
    def provided(self) -> Provided | None:
        """The environment that an earlier pack makes, None if there is none."""
        return self._shared.provided

    def provide(self, provided: Provided) -> None:
        """Say that this pack's steps make the environment, and with which Python packages.

        Raises:
            DetectError: Another pack does so already.
        """
        if (other := self._shared.provided) is not None:
            raise DetectError(f"{other.path} says already what the environment is", where=provided.path)
        self._shared.provided = provided

    def resolve_conda(
        self,
        specs: Sequence[str],
        *,
        channels: Sequence[str] = (),
        exact: Sequence[str] = (),
        extras: Sequence[str] = (),
    ) -> tuple[Lock, tuple[str, ...]]:
        """Find the conda packages of an environment now. See `WantedConda` for the arguments.

        Returns:
            The lock, which is then part of the plan, and what is to be said of it.

        Raises:
            DetectError: No packages fit together, a channel is not asked here, or nothing is to be resolved ahead
                (`--no-lock`).
        """
        if self._shared.conda is None:
            raise DetectError("conda packages are found before the build", hint="leave out --no-lock")
        python = self.pythons[0]
        lock, notes = self._shared.conda(
            WantedConda(
                specs=tuple(specs),
                channels=tuple(channels),
                exact=tuple(exact),
                extras=tuple(extras),
                python=python.version,
                architecture=self._shared.architecture,
                suite=python.suite,
            )
        )
        self._shared.locks.append(lock)
        return lock, notes

    def outside(self, name: str) -> OutsideImage:
        """Find out what an image's name means here; for a Dockerfile of the repository.

        Raises:
            DetectError: It cannot be a name, or the image cannot be had.
        """
        pinned = self._shared.outside(name, self.architecture) if self._shared.outside else name
        digest = fingerprint([pinned, self.architecture])[:16]
        return OutsideImage(name, pinned, f"localhost/hpcbinder/from:{digest}")

    def build_own(
        self, path: str, text: str, *, base: str, images: Sequence[OutsideImage], arguments: Mapping[str, str]
    ) -> None:
        """Build a Dockerfile of the repository instead of a plan's steps. See `OwnDockerfile` for the arguments."""
        self._shared.own = OwnDockerfile(path, text, base, tuple(images), dict(sorted(arguments.items())))

    def script(self, name: str) -> str:
        """Text of a shell script in the buildpack's folder.

        Raises:
            DetectError: There is none.
        """
        return read_pack_file(self.folder, name)

    def used(self, file: str, reason: str) -> None:
        """Say that a file of the repository was used, and for what."""
        self._shared.decisions.append(Decision(file, True, self.pack, reason))

    def unused(self, file: str, reason: str) -> None:
        """Say that a file one could expect to be used is not, and why."""
        self._shared.decisions.append(Decision(file, False, self.pack, reason))

    def asks(self, ecosystem: str, names: Sequence[str]) -> None:
        """Say which packages the repository itself asks for, of all that will be there; only for people to see.

        Args:
            ecosystem: Name of the list that the steps leave in the image (`python`).
            names: As that list has them.
        """
        self._shared.asked.setdefault(ecosystem, set()).update(name for name in names if name)

    def want_system(self, names: Sequence[str], reason: str, *, version: str = "") -> None:
        """Ask for Debian packages; they are installed with everybody else's in one step.

        Raises:
            DetectError: Not a package name.
        """
        for name in names:
            if not _DEBIAN_NAME.match(name):
                raise self._mistake(f"{name!r} is not the name of a Debian package")
            self._shared.system.append(SystemPackage(name, version, reason, self.pack))
        self.asks("debian", names)

    def take_system(self) -> tuple[SystemPackage, ...]:
        """What `want_system` gathered, for the buildpack that installs it. Only the last pack should: nothing may be
        asked for afterwards."""
        self._shared.system_taken = True
        return tuple(self._shared.system)

    def set_env(self, name: str, value: str) -> None:
        """Set a variable of the image; the last buildpack that sets it wins.

        Raises:
            DetectError: Not a variable's name, one of HOME, USER, LOGNAME, PATH (the image contract), or a value with
                control characters.
        """
        self._check_env({name: value})
        self._shared.env[name] = value

    def add_kernel(self, name: str) -> None:
        """Announce a Jupyter kernel that the steps install (for labels and the manifest; not needed to use it)."""
        if not re.match(r"[A-Za-z0-9._-]+\Z", name):
            raise self._mistake(f"{name!r} is not a kernel's name")
        if name not in self._shared.kernels:
            self._shared.kernels.append(name)

    def set_start(self, path: str) -> None:
        """Name the repository's start script, which runs before kernels and servers.

        Raises:
            DetectError: Its path could not stand in a variable.
        """
        self._check_env({"HPCBINDER_START": path})
        self._shared.start = path

    def add_step(
        self,
        stage: Stage,
        what: str,
        reason: str,
        script: str,
        *,
        reads: Collection[str] = (),
        data: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        caches: Collection[str] = (),
        runs_repository_code: bool = False,
        into_repo: bool = False,
        apart: Collection[str] = (),
        assembly: Assembly | None = None,
    ) -> None:
        """Add a layer. Steps run in the order of their stages; within one, in the order they were added.

        Args:
            stage: Where it stands (`Stage.SERVER` and `Stage.CONTENT` are not for buildpacks).
            what: `[a-z0-9-]+`; the step's name is `pack/what`.
            reason: Why it is there, for a person.
            script: Shell text (`/bin/sh -eu`), the same whatever the repository says: what varies goes into `data`.
            reads: Files of the repository it gets below `/run/hpcbinder/step/repo`, and all it gets of it.
            data: File name -> text, found at `/run/hpcbinder/step/files/NAME`.
            env: Extra variables.
            caches: Download caches shared by all builds, mounted at `/run/hpcbinder/cache/NAME`. Only for steps that
                run nothing of the repository's choosing.
            runs_repository_code: Code of the repository, or code that it names, runs in it.
            into_repo: `reads` stay in the image at `/srv/repo`, where the script then runs.
            apart: Folders that the step fills apart from the other steps of its stage (see `Step`).
            assembly: What the script leaves, as data, where that is known: with nothing but such steps an image can be
                made without an engine. The builder believes it: the script must do exactly that.

        Raises:
            DetectError: A value that does not fit.
        """
        name = f"{self.pack}/{what}"
        if stage in (Stage.SERVER, Stage.CONTENT):
            raise self._mistake(f"step {name} in the stage {stage.value}, which is not for buildpacks")
        if not WORD.match(what) or any(step.name == name for step in self._shared.steps):
            raise self._mistake(f"step name {name!r} is taken or not [a-z0-9-]+/[a-z0-9-]+")
        if caches and runs_repository_code:
            raise self._mistake(f"step {name} runs code of the repository and so cannot have caches that others share")
        if bad := [cache for cache in caches if not WORD.match(cache)]:
            raise self._mistake(f"step {name}: cache name {bad[0]!r} is not [a-z0-9-]+")
        if bad := [file for file in data or {} if not _DATA_NAME.match(file)]:
            raise self._mistake(f"step {name}: data file name {bad[0]!r}")
        if into_repo and stage is Stage.FINISH:
            raise self._mistake(f"step {name} runs when the whole repository is in place: into_repo says nothing there")
        if bad := [path for path in reads if self._repo.tree.kind(path) not in ("file", "symlink")]:
            raise self._mistake(f"step {name} reads {bad[0]!r}, which is no file of the repository")
        if apart and stage is Stage.FINISH:
            raise self._mistake(f"step {name} fills folders apart, which has no meaning when all is in place")
        held = [name for name in (assembly.wheels, assembly.conda) if name] if assembly is not None else []
        if assembly is not None and assembly.sources is not None:
            sources = assembly.sources
            held += [name for name in (sources.alone, *sources.together, *sources.limits, sources.targets) if name]
        runs = runs_repository_code and (assembly is None or assembly.sources is None)
        if assembly is not None and (runs or any(name not in (data or {}) for name in held)):
            raise self._mistake(f"step {name}: what it leaves cannot be said as data")
        for folder in apart:
            check_apart(folder)
        self._check_env(env or {})
        self._shared.steps.append(
            Step(
                stage=stage,
                name=name,
                reason=reason,
                script=script,
                reads=tuple(sorted(set(reads))),
                data=dict(sorted((data or {}).items())),
                env=dict(sorted((env or {}).items())),
                caches=tuple(Cache(cache, cache) for cache in sorted(set(caches))),
                runs_repository_code=runs_repository_code,
                into_repo=into_repo,
                apart=tuple(sorted(set(apart))),
                assembly=assembly,
            )
        )

    def _check_env(self, env: Mapping[str, str]) -> None:
        for name, value in env.items():
            if not _ENV_NAME.match(name) or name in _FORBIDDEN_ENV:
                raise self._mistake(f"variable {name!r} cannot be set by a buildpack")
            if re.search(r"[\x00-\x1f\x7f]", value):
                raise self._mistake(f"variable {name} would hold control characters")

    def _mistake(self, message: str) -> DetectError:
        return DetectError(f"buildpack {self.pack}: {message}", where=str(self.folder))


def read_pack_file(folder: Path, name: str) -> str:
    """Text of a file that lies directly in a buildpack's folder.

    Raises:
        DetectError: No such file, or not text.
    """
    path = folder / name
    if "/" in name or name in ("", ".", ".."):
        raise DetectError(f"{name!r} is not the name of a file in the buildpack's folder", where=str(folder))
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DetectError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=str(path)) from None

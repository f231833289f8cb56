"""The plan while buildpacks write on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from hpcbinder.errors import DetectError
from hpcbinder.model import (
    AsOf,
    Assembly,
    Cache,
    Decision,
    Inferred,
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
from hpcbinder.plan.dating import UNDATED, for_python, seconds_of
from hpcbinder.plan.repo import Repo
from hpcbinder.plan.shared import Described, Infer, Provided, Shared, SystemPackage, Translated

WORD = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_ENV_NAME = re.compile(r"[A-Z_][A-Z0-9_]*\Z")
_DATA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_DEBIAN_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+\Z")
_FORBIDDEN_ENV = frozenset({"PATH", "HOME", "USER", "LOGNAME", "LD_AUDIT", "LD_PRELOAD"})


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
    def mpi_abi(self) -> str:
        """The MPI that the site wants where a repository does not say: `mpich` or `openmpi`."""
        return self._shared.mpi_abi

    @property
    def locks(self) -> tuple[Lock, ...]:
        """What was found so far, by this pack and those before it."""
        return tuple(self._shared.locks)

    @property
    def python(self) -> Python:
        """The environment's interpreter, as chosen so far."""
        return self._shared.python

    @property
    def architecture(self) -> str:
        """What the image is for, as OCI names it (`amd64`)."""
        return self._shared.architecture

    def prefer(self, fits: Callable[[Python], bool]) -> None:
        """Have some of the interpreters first, and the Debian release they are in; for a pack's `prefer`. What a file
        of the repository says about Python counts more."""
        self._shared.pythons = tuple(sorted(self.pythons, key=lambda python: not fits(python)))
        self._shared.python = self._shared.pythons[0]

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
        lock = self._shared.resolver(self._wanted(requirements, constraints, elsewhere, prereleases))
        if lock.as_of:
            self._shared.dated = self._as_of
        if keep:
            self._shared.locks.append(lock)
        return lock

    def on_index(self, requirements: Sequence[str], *, built: bool = True) -> frozenset[str] | None:
        """Those of some requirements that the index can meet for the chosen interpreter, each for itself; None if
        nothing is to be asked now (`--no-lock`).

        Args:
            built: Also those that would have to be built, which runs code of theirs.
        """
        if self._shared.resolver is None:
            return None
        return self._shared.resolver.known(self._wanted(requirements), built=built) if requirements else frozenset()

    def _wanted(
        self,
        requirements: Sequence[str],
        constraints: Sequence[str] = (),
        elsewhere: Collection[str] = (),
        prereleases: bool = False,
    ) -> Wanted:
        return Wanted(
            ecosystem="pypi",
            requirements=tuple(requirements),
            constraints=tuple(constraints),
            elsewhere=tuple(sorted(elsewhere)),
            prereleases=prereleases,
            python=self.python.full,
            architecture=self._shared.architecture,
            suite=self.python.suite,
            source=self._shared.source,
            as_of=self._as_of.date,
            as_of_exact=self._as_of.exact,
        )

    @property
    def as_of(self) -> str:
        """Latest time (RFC 3339 in UTC) that versions may be of which nothing locks, "" for any: of the repository
        alone, whichever Python it gets."""
        return self._shared.as_of.date if self._shared.as_of is not None else ""

    @property
    def _as_of(self) -> AsOf:
        """The same for packages of the chosen interpreter."""
        return for_python(self._shared.as_of or AsOf("", ""), self.python.version)

    def dated(self, lock: Lock | None = None) -> dict[str, str]:
        """Variables of a step in which uv finds versions by itself: those of the plan's date, but for the packages that
        are named in HPCBINDER_UNDATED.

        Args:
            lock: What was found before for the same environment, whose date then counts.
        """
        date = self._as_of.date if lock is None else lock.as_of
        if date:
            self._shared.dated = self._as_of
        return {"UV_EXCLUDE_NEWER": date, "HPCBINDER_UNDATED": " ".join(sorted(UNDATED))} if date else {}

    def constraints_as_of(self, requirements: Sequence[str], *, constraints: Sequence[str] = ()) -> tuple[str, ...]:
        """Lines of a constraints file (`name<=version`) that leave a pip only what there was at the plan's date, for an
        old pip that is to install `requirements` into the chosen interpreter; none if there is no date.

        What is required in exact versions stays as it is. What packages depend on is followed as far as the index tells
        it without anything being built.

        Args:
            requirements, constraints: PEP 508 lines without URLs.

        Raises:
            DetectError: A line that is none, or a person named the date and the index does not say when its files were
                uploaded.
            FetchError: The index cannot be asked.
        """
        if self._shared.resolver is None or not self._as_of.date:
            return ()
        lines = self._shared.resolver.constraints_as_of(self._wanted(requirements, constraints))
        if lines:
            self._shared.dated = self._as_of
        return lines

    def infer_python(self, ask: Infer) -> None:
        """Say who tells which Python packages are wanted where no file of the repository names any, or none but its own
        project. The pack that makes the environment asks, when it has chosen the interpreter."""
        self._shared.infer.append(ask)

    def inferred_python(self, described: Described | None = None) -> tuple[Inferred, ...]:
        """The Python packages that earlier packs find wanted, for the pack that makes the environment, which found none
        in any file, or none but what the repository's own project says."""
        self._shared.inferred += [found for ask in self._shared.infer for found in ask(described)]
        self._shared.infer.clear()
        return tuple(self._shared.inferred)

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

    @property
    def translates_conda(self) -> bool:
        """Files that ask for conda packages are to be met with Debian's and the Python index's instead."""
        return self._shared.translate_conda

    @property
    def translated(self) -> Translated | None:
        """What an earlier pack made of a file of another ecosystem, None if there is none."""
        return self._shared.translated

    def translate(self, translated: Translated) -> None:
        """Say what pip is to install for a file of another ecosystem."""
        self._shared.translated = translated

    def resolve_conda(
        self,
        specs: Sequence[str],
        *,
        channels: Sequence[str] = (),
        exact: Sequence[str] = (),
        extras: Sequence[str] = (),
        export: bool = False,
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
                export=export,
                not_after=seconds_of(self.as_of) if self.as_of else None,
                not_after_exact=self._shared.as_of is not None and self._shared.as_of.exact,
            )
        )
        if lock.as_of:
            self._shared.dated = self._shared.as_of
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
        """Build a Dockerfile of the repository instead of a plan's steps. See `OwnDockerfile` for the arguments.

        What buildpacks that come later would do is left out.
        """
        self._shared.own_pack = self.pack
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

    @property
    def system(self) -> frozenset[str]:
        """Names of the Debian packages that were asked for so far."""
        return frozenset(package.name for package in self._shared.system)

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

    def add_path(self, folder: str) -> None:
        """Put a folder of programs at the beginning of the image's PATH, behind those that were put there before.

        Raises:
            DetectError: Not a plain absolute path.
        """
        if not re.match(r"/[A-Za-z0-9_./+-]*\Z", folder) or ".." in folder.split("/"):
            raise self._mistake(f"{folder!r} cannot be on PATH")
        if folder not in self._shared.path:
            self._shared.path.append(folder)

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
        """Add a layer. Steps run in the order of their stages; within one, in the order they were added, but what a
        pack does before it runs code of the repository comes before other packs' steps that do. A step that sees
        credentials cannot come after such code, unless it is made `apart`.

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

"""Wheels of what has none: a source archive, a commit, a folder of the repository, built once and kept.

What a build needs is fetched before, as wheels; then it runs in a workshop, on the base, with no network and nothing of
the person's. A wheel is kept under what it was made of, in a store that is its owner's alone: nobody else has a reason
to trust it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcbinder.catalog import dump, make_folder, mark_used, parse, remove_tree, write_atomic
from hpcbinder.contract import STEP_DIR
from hpcbinder.errors import BuildError, CatalogError, DetectError, FetchError, HpcbinderError
from hpcbinder.model import Lock, Wanted, fingerprint
from hpcbinder.progress import Reporter
from hpcbinder.runtime import Workshop
from hpcbinder.text import one_line
from hpcbinder.wheels.archive import Archive, Refused, refusal
from hpcbinder.wheels.bytecode import InterpreterSource
from hpcbinder.wheels.distinfo import read_dist_info
from hpcbinder.wheels.index import rank_of
from hpcbinder.wheels.sdists import BuildSystem, read_build_system
from hpcbinder.wheels.store import WheelStore
from hpcbinder.wheels.target import Target

PREFIX = "/opt/build"
"""Where what a build needs is unpacked: an environment of its own, as PEP 517 wants it."""

_SCHEME = "1"
"""Part of every key: count it up when the same source should become another wheel."""
_LARGEST = 8 << 30
_LARGEST_ANSWER = 1 << 20
_ROUNDS = 3
"""How often a backend may want more packages than before."""
_NAME = re.compile(r"[A-Za-z0-9._+!-]+\.whl")
_SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Source:
    """Something to build a wheel of.

    Attributes:
        name: The package, normalised; "" if only its build tells.
        version: "" if only its build tells.
        identity: Names its content: a hash, a commit.
        path: The archive, or the folder.
        subdirectory: Where in it the project is.
        url: Where it came from, as `layout.direct_url` takes it; "" for the index.
        title: It, for a person.
    """

    name: str
    version: str
    identity: str
    path: Path
    subdirectory: str = ""
    url: str = ""
    title: str = ""


@dataclass(frozen=True)
class Place:
    """What wheels are built on and for.

    Attributes:
        layers: Squashed layers, the lowest first: the base, and what the system was given, and an empty environment at
            `PREFIX`.
        identity: Of these: other layers may lead to another wheel.
        target: What the wheels are for.
        suite: Debian suite of the base.
        env: Variables of a build.
        interpreter: Makes bytecode of what a build needs.
        workshop: Gives what runs builds there; RunError if nothing does.
        as_of: Time (RFC 3339 in UTC) of which what a build needs is, "" for the newest.
    """

    layers: Sequence[Path]
    identity: Sequence[str]
    target: Target
    suite: str
    env: Mapping[str, str]
    interpreter: InterpreterSource
    workshop: Callable[[], Workshop]
    as_of: str = ""


@dataclass(frozen=True)
class BuiltWheel:
    """A wheel that was built.

    Attributes:
        key: Names what it was made of.
        name: Of the package, normalised.
        filename: The wheel's.
        sha256: Of the file, hex; "" where more packages were wanted first.
        requires: Packages that it depends on (`Requires-Dist`).
        wanted: What its backend wanted besides what pyproject.toml says.
    """

    key: str
    name: str = ""
    version: str = ""
    filename: str = ""
    sha256: str = ""
    requires: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()


class WheelBuilder:
    """Builds wheels, and keeps them.

    Args:
        folder: Where they are kept; this user's own.
        resolve: Finds what a build needs.
        wheels: Has that as squashed layers.
        scratch: Folder for temporary files, on the file system of `folder`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        resolve: Callable[[Wanted], Lock],
        wheels: WheelStore,
        scratch: Path,
        reporter: Reporter,
    ) -> None:
        self._folder = folder
        self._resolve = resolve
        self._wheels = wheels
        self._scratch = scratch
        self._reporter = reporter

    def path(self, wheel: BuiltWheel) -> Path:
        """Where a wheel is kept, by the name that `WheelStore` looks for."""
        return self._folder / f"{wheel.sha256}.whl"

    def build(self, source: Source, place: Place) -> BuiltWheel:
        """Have the wheel of a source.

        Raises:
            BuildError: It cannot be built; the message begins with what it is.
            RunError: Nothing here runs a build.
            FetchError: What the build needs cannot be had.
            ConvertError: A layer cannot be written or is damaged.
        """
        title = source.title or f"{source.name} {source.version}".strip()
        try:
            return self._build(source, place, title)
        except (BuildError, DetectError, FetchError) as error:
            if error.message.startswith(f"{title}: "):
                raise
            kind = FetchError if isinstance(error, FetchError) else BuildError
            raise kind(f"{title}: {error.message}", where=error.where, hint=error.hint) from None
        except OSError as error:
            raise BuildError(f"{title}: cannot be built: {error.strerror or error}") from error

    def _build(self, source: Source, place: Place, title: str) -> BuiltWheel:
        system = read_build_system(source.path, source.subdirectory)
        lock = self._needs(system.requires, place)
        of = [_SCHEME, source.identity, source.subdirectory, place.target, list(place.identity), dict(place.env)]
        wanted: tuple[str, ...] = ()
        for _ in range(_ROUNDS):
            key = fingerprint([*of, lock.packages if lock else (), wanted])
            found = self._kept(key) or self._run(key, source, system, lock, wanted, place, title)
            if found.sha256:
                return found
            wanted = tuple(sorted({*wanted, *found.wanted}))
            lock = self._needs((*system.requires, *wanted), place)
        raise BuildError("its build wants more packages each time it is asked")

    def _needs(self, requires: Sequence[str], place: Place) -> Lock | None:
        """What a build takes, as a lock; None if it takes nothing."""
        if not requires:
            return None
        target = place.target
        lock = self._resolve(
            Wanted(
                ecosystem="pypi",
                requirements=tuple(sorted(set(requires))),
                constraints=(),
                elsewhere=(),
                prereleases=False,
                python=target.python,
                architecture=target.architecture,
                suite=place.suite,
                source=f"build of wheels: {' '.join(sorted(set(requires)))}",
                as_of=place.as_of,
            )
        )
        if lock.unresolved:
            raise BuildError(
                f"its build takes {', '.join(lock.unresolved[:5])}, which would have to be built first",
                hint="--engine auto|docker|podman|buildah builds that, too (docs/engines.md)",
            )
        return lock

    def _kept(self, key: str) -> BuiltWheel | None:
        path = self._folder / "records" / f"{key}.json"
        try:
            with path.open("rb") as file:
                found: BuiltWheel = parse(file.read(_LARGEST_ANSWER), BuiltWheel, path)
        except (OSError, CatalogError):
            return None
        if found.key != key or (found.sha256 and not self.path(found).exists()):
            return None
        mark_used(path)
        if found.sha256:
            mark_used(self.path(found))
            self._reporter.phase("build", f"{found.name} {found.version}: its wheel was built before")
        return found

    def _run(
        self,
        key: str,
        source: Source,
        system: BuildSystem,
        lock: Lock | None,
        wanted: Sequence[str],
        place: Place,
        title: str,
    ) -> BuiltWheel:
        workshop = place.workshop()
        layers = list(place.layers)
        if lock is not None:
            target = Target(
                PREFIX, place.target.python, f"{PREFIX}/bin/python", place.target.architecture, place.target.platform
            )
            layers += self._wheels.layers(lock, target, place.interpreter, scratch=self._scratch)
        self._reporter.phase("build", f"building the wheel of {title}, without a network: {workshop.description}")
        room = self._scratch / f"wheel-{secrets.token_hex(4)}"
        step, out = room / "step", room / "out"
        try:
            for folder in (room, step, out):
                folder.mkdir(mode=0o700)
            binds = [(out, f"{STEP_DIR}/out", True)]
            archive = ""
            if source.path.is_dir():
                (step / "source").mkdir()
                binds.append((source.path, f"{STEP_DIR}/step/source", False))
            else:
                archive = f"source{'.zip' if source.path.name.endswith('.zip') else '.tar.gz'}"
                shutil.copyfile(source.path, step / archive)  # a build may be able to write to it
            task = {
                "archive": archive,
                "subdirectory": source.subdirectory,
                "backend": system.backend,
                "backend_path": list(system.path),
                "requires": list(wanted),
            }
            (step / "build.json").write_text(json.dumps(task), encoding="utf-8")
            shutil.copyfile(Path(__file__).with_name("inside.py"), step / "inside.py")
            (step / "run.sh").write_text(_SCRIPT, encoding="utf-8")
            workshop.run_aside(
                layers,
                step,
                env={**place.env, "PATH": f"{PREFIX}/bin:{_SYSTEM}"},
                binds=binds,
                log=lambda line: self._reporter.log("build", line),
                scratch=room,
                title=f"build of {title}",
            )
            return self._take(key, source, place.target, out, wanted)
        except BuildError as error:
            network = "it is built without a network; --engine docker|podman|buildah builds it with one"
            hint = "; ".join(filter(None, (error.hint, network)))
            raise BuildError(error.message, where=error.where, hint=hint) from None
        finally:
            remove_tree(room)

    def _take(self, key: str, source: Source, target: Target, out: Path, wanted: Sequence[str]) -> BuiltWheel:
        """What a build left, which is hostile: links, names, sizes."""
        answer = _answer(out)
        more = answer.get("requires")
        if isinstance(more, list) and more and all(isinstance(line, str) for line in more):
            if set(more) <= set(wanted):
                raise BuildError("its build does not say what it wants")
            return self._keep(BuiltWheel(key, wanted=tuple(sorted(more))))
        name = answer.get("wheel")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BuildError("its build made no wheel")
        make_folder(self._folder)
        kept = self._scratch / f"{secrets.token_hex(8)}.whl"
        try:
            sha256 = _copy(out / name, kept)
            built = _looked_at(kept, name, source, target)
            found = BuiltWheel(key, built.name, built.version, name, sha256, built.requires)
            kept.replace(self.path(found))
        finally:
            kept.unlink(missing_ok=True)
        return self._keep(found)

    def _keep(self, wheel: BuiltWheel) -> BuiltWheel:
        make_folder(self._folder / "records")
        write_atomic(self._folder / "records" / f"{wheel.key}.json", dump(wheel))
        return wheel


_SCRIPT = f"""\
umask 022
# 8 GiB a file, in blocks of 512 bytes: what was never written takes room where it is copied.
ulimit -f {_LARGEST >> 9} || :
cd {STEP_DIR}/work
mkdir -p .home .tmp {STEP_DIR}/out
export HOME=$PWD/.home TMPDIR=$PWD/.tmp LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0
export SOURCE_DATE_EPOCH=1577836800
exec {PREFIX}/bin/python -s {STEP_DIR}/step/inside.py
"""
"""Times that get into a wheel are those of an image's other files: 1 January 2020."""


def _answer(out: Path) -> dict[str, Any]:
    try:
        with _regular(out / "answer.json") as file:
            value = json.loads(file.read(_LARGEST_ANSWER))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BuildError("its build ended without a word of what it made")
    return value


def _regular(path: Path) -> Any:
    """Open a file that a build left: a link could lead to one of the person's, and a pipe would never end."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BuildError("its build left no file where one belongs")
    return os.fdopen(handle, "rb")


def _copy(source: Path, target: Path) -> str:
    import hashlib

    digest = hashlib.sha256()
    size = 0
    try:
        with _regular(source) as file, target.open("xb") as out:
            while piece := file.read(1 << 20):
                size += len(piece)
                if size > _LARGEST:
                    raise BuildError(f"its wheel has more than {_LARGEST >> 30} GiB")
                digest.update(piece)
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
    except FileNotFoundError:
        raise BuildError("its build made no wheel where it says") from None
    except OSError as error:
        raise BuildError(f"its wheel cannot be kept: {error.strerror}") from None
    return digest.hexdigest()


@dataclass(frozen=True)
class _Looked:
    name: str
    version: str
    requires: tuple[str, ...]


def _looked_at(path: Path, filename: str, source: Source, target: Target) -> _Looked:
    """Check that a wheel is what was to be built, and runs where it is to run."""
    from email.parser import BytesHeaderParser

    from packaging.utils import canonicalize_name
    from packaging.version import InvalidVersion, Version

    from hpcbinder.model import LockedPackage

    name = canonicalize_name(filename.split("-")[0])
    version = filename.split("-")[1] if filename.count("-") >= 4 else ""
    try:
        version = str(Version(version))
        same = not source.version or Version(source.version) == Version(version)
    except InvalidVersion:
        raise BuildError(f"its build made {one_line(filename, 200)}, which is no name of a wheel") from None
    if (source.name and name != source.name) or not same:
        raise BuildError(f"its build made {one_line(filename, 200)}, which is another package or version")
    rank = rank_of(filename, LockedPackage(name, version, ()), target)
    if rank is None or rank[0] < 0:
        raise BuildError(f"its build made {one_line(filename, 200)}, which does not run on Python {target.python}")
    try:
        with Archive(path) as archive:
            info = read_dist_info(archive, filename)
            headers = BytesHeaderParser().parsebytes(archive.read(f"{info.folder}/METADATA", 16 << 20))
    except (Refused, KeyError, HpcbinderError) as error:
        raise refusal(name, version, error) from None
    return _Looked(name, version, tuple(str(line) for line in headers.get_all("Requires-Dist") or ()))

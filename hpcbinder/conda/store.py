"""The cache of squashed conda packages: each is fetched, unpacked, compiled and compressed once, for every environment
it is in."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from hpcbinder.catalog import make_folder, mark_used, move_file, vouched
from hpcbinder.conda.installed import FORM, CondaTar
from hpcbinder.conda.record import record_path
from hpcbinder.conda.scripts import harmless, link_scripts
from hpcbinder.config import SiteConfig
from hpcbinder.errors import BuildError, ConvertError
from hpcbinder.model import LockedPackage, fingerprint
from hpcbinder.process import usable_cores
from hpcbinder.progress import Reporter
from hpcbinder.squashfs import Image, Options, write_layer
from hpcbinder.wheels import Candidate, Compilers, Downloads, Interpreter, Refused, Target, host_interpreter

PythonOf = Callable[[LockedPackage, Path], Interpreter]
"""(a Python, its package's file) -> how it is started on this machine."""

SUFFIX = ".package"
"""Of files that are kept as they came."""

_FETCHES = 8
"""Packages that come at the same time."""
_SHOWN = 5
"""Conflicts that are told one by one."""
_RECORD = 256 << 20
_SCRIPT = 1 << 20


@dataclass(frozen=True)
class CondaLayer:
    """A squashed package.

    Attributes:
        scripts: Its link scripts that have to be run, below the prefix.
    """

    package: LockedPackage
    path: Path
    scripts: tuple[str, ...]


class CondaStore:
    """Conda packages and their squashed layers in a folder.

    Args:
        folder: Shared by all who may use the layers; made if it is not there.
        site: Certificates and proxies.
        options: How layers are squashed; part of every file's name.
        reporter: Hears what takes time, and which files several packages have.
        below: Folders of the same kind in the stores of sites, only to be read (`catalog.vouched`).
    """

    def __init__(
        self, folder: Path, site: SiteConfig, options: Options, reporter: Reporter, *, below: Sequence[Path] = ()
    ) -> None:
        self._folders = (folder, *below)
        self._site = site
        self._options = options
        self._reporter = reporter

    def layers(
        self,
        packages: Sequence[LockedPackage],
        target: Target,
        python_of: PythonOf | None = None,
        *,
        scratch: Path,
        jobs: int | None = None,
    ) -> list[CondaLayer]:
        """Have packages squashed, each at its place below the target's prefix.

        What has a layer is neither fetched nor looked at. Where two packages have one file, the later one's is the one
        that stays, as with conda, and the reporter hears of it.

        Args:
            packages: In the order they are linked in.
            python_of: Asked for what makes the target's bytecode if layers are missing and no interpreter of this
                machine makes the same.
            scratch: Folder for unfinished files, on the file system of the store.
            jobs: Packages worked on at the same time, None for one per usable core.

        Returns:
            In the order of `packages`, which is that from the lowest to the topmost.

        Raises:
            FetchError: A package cannot be had, or is not what the lock says.
            BuildError: A package is refused, or there is no interpreter for the target's bytecode.
            ConvertError: The store cannot be written.
        """
        missing = [package for package in packages if self._known(package, target) is None]
        try:
            if missing:
                self._make(missing, packages, target, python_of, scratch, jobs or usable_cores())
        except OSError as error:
            raise ConvertError(
                f"cannot keep conda packages: {error.strerror or error}", where=str(self._folders[0])
            ) from None
        found = [(package, self._known(package, target)) for package in packages]
        layers = [(package, path) for package, path in found if path is not None]
        if len(layers) < len(packages):
            raise ConvertError("layers of conda packages went away while they were used", where=str(self._folders[0]))
        for _, path in layers:
            mark_used(path)
        self._tell(layers, target, len(missing))
        return [CondaLayer(package, path, _scripts(package, path, target)) for package, path in layers]

    def missing(self, packages: Sequence[LockedPackage], target: Target) -> list[LockedPackage]:
        """The packages that have no layer yet; nobody is asked."""
        return [package for package in packages if self._known(package, target) is None]

    def fetched(self, package: LockedPackage, scratch: Path) -> Path:
        """A package as it comes, in the cache.

        Raises:
            FetchError: It cannot be had.
            ConvertError: It cannot be kept.
        """
        folder, *below = self._folders
        try:
            make_folder(folder)
            return self._fetch(package, Downloads(folder, scratch, self._site, (), below, SUFFIX))
        except OSError as error:
            raise ConvertError(f"cannot keep conda packages: {error.strerror}", where=str(folder)) from None

    def _known(self, package: LockedPackage, target: Target) -> Path | None:
        name = self._name(package, target)
        folder, *below = self._folders
        if (mine := folder / "layers" / name).exists():
            return mine
        places = ((each / "layers" / name, each.parent) for each in below)
        return next((path for path, store in places if vouched(path, store)), None)

    def _name(self, package: LockedPackage, target: Target) -> str:
        """A layer's name. What is made for a platform has the Python that it is for in it, if any; what is for all
        becomes what the environment's Python needs."""
        subdir = package.url.rpartition("/")[0].rpartition("/")[2]
        python = target.interpreter if subdir == "noarch" else ""
        # Its record says where it came from.
        place = [target.prefix, python, package.url, package.size, FORM]
        return f"{_digest(package)}-{fingerprint(place)[:16]}-{self._options.key}.squashfs"

    def _make(
        self,
        missing: Sequence[LockedPackage],
        packages: Sequence[LockedPackage],
        target: Target,
        python_of: PythonOf | None,
        scratch: Path,
        jobs: int,
    ) -> None:
        folder, *below = self._folders
        for path in (folder, folder / "layers"):
            make_folder(path)
        downloads = Downloads(folder, scratch, self._site, (), below, SUFFIX)
        interpreter = host_interpreter(target)
        if interpreter is None and python_of is not None:
            python = next((package for package in packages if package.name == "python"), None)
            if python is not None:
                interpreter = python_of(python, self._fetch(python, downloads))
        if interpreter is None:
            raise BuildError(
                f"nothing here makes bytecode for Python {target.python}",
                hint=f"install python{target.version[0]}.{target.version[1]} on this machine",
            )
        stopped = threading.Event()
        with (
            Compilers(interpreter, target, jobs) as compilers,
            _pool(_FETCHES, "fetch", stopped, downloads) as fetchers,
            _pool(jobs, "conda", stopped, downloads) as squashers,
        ):

            def squash(package: LockedPackage, path: Path) -> None:
                self._squash(package, path, target, compilers, scratch, stopped, jobs)

            fetching = {fetchers.submit(self._fetch, package, downloads): package for package in missing}
            squashing: list[Future[None]] = []
            self._say(0, len(missing))
            for fetched in as_completed(fetching):
                squashing.append(squashers.submit(squash, fetching[fetched], fetched.result()))
                for done in squashing:
                    if done.done():
                        done.result()
            for count, done in enumerate(as_completed(squashing), 1):
                done.result()
                self._say(count, len(missing))

    def _say(self, done: int, total: int) -> None:
        what = f"squashing {total} conda package{'s' if total != 1 else ''}"
        self._reporter.phase("convert", what, done / total)

    def _fetch(self, package: LockedPackage, downloads: Downloads) -> Path:
        """A package as it comes, checked."""
        kept = downloads.kept(_digest(package))
        if kept is not None and _sum(kept) == _digest(package):
            mark_used(kept)
            return kept
        self._reporter.log("fetch", _file(package))
        if kept is not None and kept.parent == self._folders[0]:
            kept.unlink(missing_ok=True)
        return downloads.path(downloads.fetch(_plain(package), Candidate(_file(package), package.url, frozenset())))

    def _squash(
        self,
        package: LockedPackage,
        path: Path,
        target: Target,
        compilers: Compilers,
        scratch: Path,
        stopped: threading.Event,
        jobs: int,
    ) -> None:
        name = self._name(package, target)
        files = Path(tempfile.mkdtemp(prefix="conda-", dir=scratch))
        try:
            stream = CondaTar(path, package, target, compilers, files / "files", stopped=stopped.is_set)
            unfinished = files / name
            write_layer(cast("BinaryIO", stream), unfinished, self._options, jobs=jobs)
            unfinished.chmod(0o644)
            move_file(unfinished, self._folders[0] / "layers" / name)
        except Refused as error:
            raise BuildError(
                f"the conda package {package.name} {package.version} {package.build} is refused: {error.message}",
                hint=error.hint or "nothing of it was installed; ask for another version, or tell the channel's owners",
            ) from None
        finally:
            shutil.rmtree(files, ignore_errors=True)

    def _tell(self, layers: Sequence[tuple[LockedPackage, Path]], target: Target, made: int) -> None:
        packages = f"{len(layers)} conda package{'s' if len(layers) != 1 else ''}"
        self._reporter.phase("convert", f"{packages}: {made} squashed now, {len(layers) - made} there already")
        owner: dict[str, str] = {}
        shared: dict[str, list[str]] = {}
        for package, layer in layers:
            for path in _files(package, layer, target):
                if path in owner:
                    shared.setdefault(path, [owner[path]]).append(package.name)
                owner[path] = package.name
        for path, names in sorted(shared.items())[:_SHOWN]:
            self._reporter.phase("convert", f"{path} is in {' and '.join(names)}; {names[-1]}'s stays")
        if len(shared) > _SHOWN:
            self._reporter.phase("convert", f"{len(shared) - _SHOWN} more files are in several conda packages")


@contextmanager
def _pool(threads: int, name: str, stopped: threading.Event, downloads: Downloads) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    try:
        yield pool
    except BaseException:
        stopped.set()
        downloads.stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _scripts(package: LockedPackage, layer: Path, target: Target) -> tuple[str, ...]:
    found = []
    with Image.open(layer) as image:
        for path in link_scripts(package):
            whole = f"{target.prefix}/{path}"
            node = image.lookup(whole)
            if node is not None and (
                node.kind != "file" or node.size > _SCRIPT or not harmless(image.read(whole, _SCRIPT))
            ):
                found.append(path)
    return tuple(found)


def _files(package: LockedPackage, layer: Path, target: Target) -> list[str]:
    """A package's files by its record, without bytecode."""
    with Image.open(layer) as image:
        text = image.read(f"{target.prefix}/{record_path(package)}", _RECORD)
    return [path for path in json.loads(text)["files"] if not path.endswith(".pyc")]


def _digest(package: LockedPackage) -> str:
    return package.hashes[0].removeprefix("sha256:")


def _file(package: LockedPackage) -> str:
    return package.url.rpartition("/")[2]


def _plain(package: LockedPackage) -> LockedPackage:
    """As one of an index that the site chose: what the channel is."""
    return LockedPackage(package.name, package.version, package.hashes, "", package.build, package.size)


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()

"""Making layers of wheels: several are fetched at the same time, and squashed while others still come."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import PriorityQueue

from hpcbinder.catalog import mark_used, move_file
from hpcbinder.errors import FetchError
from hpcbinder.model import LockedPackage
from hpcbinder.progress import Reporter
from hpcbinder.squashfs import Options, write_layer
from hpcbinder.wheels.archive import Refused, refusal
from hpcbinder.wheels.bytecode import Compiler
from hpcbinder.wheels.chosen import Chosen, ChosenStore
from hpcbinder.wheels.download import Downloads
from hpcbinder.wheels.installed import WheelTar
from hpcbinder.wheels.locks import Lock
from hpcbinder.wheels.target import Target

FETCHES = 8
"""Wheels that come at the same time."""


@dataclass(frozen=True)
class Places:
    """Where things are.

    Attributes:
        scratch: Folder for unfinished layers, on the file system of the finished ones.
        layer: Package, SHA-256 of its wheel -> where its layer is to be.
        known: Package -> its layer, if it is there.
        lock: Package -> file to lock.
    """

    scratch: Path
    layer: Callable[[LockedPackage, str], Path]
    known: Callable[[LockedPackage], Path | None]
    lock: Callable[[LockedPackage], Path]


@dataclass(frozen=True)
class _Fetched:
    chosen: Chosen
    path: Path
    lock: Lock
    new: bool


def have(
    package: LockedPackage, target: Target, downloads: Downloads, chosen_store: ChosenStore, reporter: Reporter
) -> tuple[Chosen, Path, bool]:
    """Have a wheel on disk: which it is, where it is, and whether it was fetched now.

    Raises:
        FetchError: It cannot be had.
        OSError: It cannot be kept.
    """
    chosen = chosen_store.find(package, target)
    path = None if chosen is None else downloads.kept(chosen.sha256)
    new = path is None
    if chosen is None or path is None:
        candidate = downloads.find(package, target)
        reporter.log("fetch", candidate.filename)
        digest = downloads.fetch(package, candidate)
        chosen = chosen_store.add(package, target, candidate.filename, digest)
        path = downloads.path(digest)
    return chosen, path, new


class Making:
    """Makes the layers of some packages.

    Args:
        target: What they are installed for.
        downloads: Gets wheels.
        chosen: Remembers which wheel a package is.
        compiler: Makes bytecode.
        options: How layers are squashed.
        places: Where they go.
        reporter: Hears how far it is.
        jobs: Wheels that are squashed at the same time.
    """

    def __init__(
        self,
        target: Target,
        downloads: Downloads,
        chosen: ChosenStore,
        compiler: Compiler,
        options: Options,
        places: Places,
        reporter: Reporter,
        jobs: int,
    ) -> None:
        self._target = target
        self._downloads = downloads
        self._chosen = chosen
        self._compiler = compiler
        self._options = options
        self._places = places
        self._reporter = reporter
        self._jobs = jobs
        self._stopped = threading.Event()
        self._locks: list[Lock] = []
        # The negative size of each, and its number, since two may be of one size.
        self._ready: PriorityQueue[tuple[int, int, LockedPackage, _Fetched]] = PriorityQueue()

    def make(self, packages: Sequence[LockedPackage]) -> None:
        """Make the layers; what another process is making is waited for.

        Raises:
            FetchError: A wheel cannot be had.
            BuildError: A wheel is refused.
            ConvertError: A layer cannot be written.
            OSError: A wheel cannot be read or kept.
        """
        try:
            self._make(packages)
        finally:
            for lock in self._locks:
                lock.release(done=False)

    def _make(self, packages: Sequence[LockedPackage]) -> None:
        self._say(0, len(packages))
        with self._pool(FETCHES, "fetch") as fetchers, self._pool(self._jobs, "wheel") as squashers:
            fetching = {fetchers.submit(self._fetch, package, wait=False): package for package in packages}
            squashing: list[Future[None]] = []
            busy = []
            for fetched in as_completed(fetching):
                package, wheel = fetching[fetched], fetched.result()
                if wheel is not None:
                    # What takes long begins early, else it would be the last, alone.
                    self._ready.put((-wheel.path.stat().st_size, len(squashing), package, wheel))
                    squashing.append(squashers.submit(self._squash_largest))
                elif self._places.known(package) is None:
                    busy.append(package)
                for squashed in squashing:
                    if squashed.done():
                        squashed.result()
            others = len(packages) - len(squashing)
            for count, squashed in enumerate(as_completed(squashing), 1):
                squashed.result()
                self._say(others + count, len(packages))
        if busy:
            self._reporter.phase("convert", f"another process is squashing {busy[0].name}; waiting for it")
        for package in busy:
            wheel = self._fetch(package, wait=True)
            if wheel is not None:
                self._squash(package, wheel)

    def _say(self, done: int, total: int) -> None:
        # One message for all of them, so that it is one line where lines stay.
        self._reporter.phase("convert", f"squashing {total} wheel{'s' if total != 1 else ''}", done / total)

    @contextmanager
    def _pool(self, threads: int, name: str) -> Iterator[ThreadPoolExecutor]:
        pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        try:
            yield pool
        except BaseException:
            self._stopped.set()
            self._downloads.stop()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _fetch(self, package: LockedPackage, *, wait: bool) -> _Fetched | None:
        """Have a wheel on disk, and its package's lock; None if another process has the lock or made the layer."""
        lock = Lock(self._places.lock(package))
        self._locks.append(lock)
        wheel = None
        try:
            if lock.take(wait=wait) and self._places.known(package) is None:
                wheel = self._have(package, lock)
        finally:
            if wheel is None:
                lock.release(done=self._places.known(package) is not None)
        return wheel

    def _have(self, package: LockedPackage, lock: Lock) -> _Fetched:
        chosen, path, new = have(package, self._target, self._downloads, self._chosen, self._reporter)
        return _Fetched(chosen, path, lock, new)

    def _squash_largest(self) -> None:
        """Squash the largest of the wheels that have come."""
        *_, package, wheel = self._ready.get_nowait()
        self._squash(package, wheel)

    def _squash(self, package: LockedPackage, wheel: _Fetched) -> None:
        out = self._places.layer(package, wheel.chosen.sha256)
        done = False
        try:
            if not wheel.new:
                mark_used(wheel.path)
                _check(wheel.path, package, wheel.chosen)
            unfinished = self._places.scratch / out.name
            with WheelTar(
                wheel.path,
                wheel.chosen.filename,
                self._target,
                self._compiler,
                url=package.url,
                digest=wheel.chosen.sha256,
                stopped=self._stopped.is_set,
            ) as stream:
                write_layer(stream, unfinished, self._options, jobs=self._jobs)  # type: ignore[arg-type]
            unfinished.chmod(0o644)
            move_file(unfinished, out)
            done = True
        except Refused as error:
            raise refusal(package.name, package.version, error) from None
        finally:
            wheel.lock.release(done=done)


def _check(path: Path, package: LockedPackage, chosen: Chosen) -> None:
    """That a wheel is still what its name says: it may have been kept for long, and by others."""
    sums = {name: hashlib.new(name) for name in {"sha256", *(value.partition(":")[0] for value in package.hashes)}}
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            for one in sums.values():
                one.update(piece)
    found = {f"{name}:{one.hexdigest()}" for name, one in sums.items()}
    if f"sha256:{chosen.sha256}" not in found or not found & set(package.hashes):
        raise FetchError(
            f"{package.name} {package.version}: the wheel that was kept is damaged", where=str(path), hint="remove it"
        )

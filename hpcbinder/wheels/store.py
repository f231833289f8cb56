"""The cache of squashed wheels: each is fetched, unpacked, compiled and compressed once, for every environment it is
in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from hpcbinder.catalog import make_folder, mark_used, vouched
from hpcbinder.config import SiteConfig
from hpcbinder.errors import BuildError, ConvertError, FetchError, HpcbinderError
from hpcbinder.model import Lock, LockedPackage, fingerprint
from hpcbinder.process import usable_cores
from hpcbinder.progress import Reporter
from hpcbinder.squashfs import Options
from hpcbinder.wheels.bytecode import Compilers, Interpreter, InterpreterSource, host_interpreter
from hpcbinder.wheels.chosen import ChosenStore
from hpcbinder.wheels.conflicts import conflicts
from hpcbinder.wheels.download import Downloads
from hpcbinder.wheels.installed import FORM
from hpcbinder.wheels.making import FETCHES, Making, Places, have
from hpcbinder.wheels.target import Target

_SHOWN = 5
"""Conflicts that are told one by one."""


class WheelStore:
    """Wheels and their squashed layers in a folder.

    Args:
        folder: Shared by all who may use the layers; made if it is not there.
        site: Package index, certificates, proxies.
        options: How layers are squashed; part of every file's name.
        reporter: Hears what takes time, and which files several wheels have.
        hosts: Globs of hosts that a lock's URLs may lead to besides public ones (`source.hosts`).
        below: Folders of the same kind in the stores of sites, only to be read (`catalog.vouched`).
    """

    def __init__(
        self,
        folder: Path,
        site: SiteConfig,
        options: Options,
        reporter: Reporter,
        *,
        hosts: Collection[str] = (),
        below: Sequence[Path] = (),
    ) -> None:
        self._folders = (folder, *below)
        self._site = site
        self._options = options
        self._reporter = reporter
        self._hosts = tuple(hosts)
        self._chosen = ChosenStore(folder / "chosen", [path / "chosen" for path in below])

    def missing(self, lock: Lock, target: Target) -> list[LockedPackage]:
        """The packages that have no layer yet; nobody is asked."""
        return [package for package in lock.packages if self._known(package, target) is None]

    def layers(
        self,
        lock: Lock,
        target: Target,
        interpreter: InterpreterSource | None = None,
        *,
        scratch: Path,
        jobs: int | None = None,
    ) -> list[Path]:
        """Have all packages of a lock squashed, each at its place below the target's prefix.

        What has a layer is neither fetched nor looked at. Where two wheels have one file, the layers' order makes it
        the one that `pip install --no-deps` of the lock leaves there, and the reporter hears of it.

        Args:
            interpreter: Asked, at most once, for what makes the target's bytecode if layers are missing and no
                interpreter of this machine makes the same.
            scratch: Folder for unfinished files, on the file system of the store.
            jobs: Wheels worked on at the same time, None for one per usable core.

        Returns:
            Their files, from the lowest to the topmost.

        Raises:
            FetchError: A wheel cannot be had, or is not what the lock says.
            BuildError: A wheel is refused, or there is no interpreter for the target's bytecode.
            ConvertError: The store cannot be written.
        """
        missing = self.missing(lock, target)
        if missing:
            try:
                self._make(missing, target, interpreter, scratch, jobs or usable_cores())
            except OSError as error:
                raise ConvertError(
                    f"cannot keep wheels: {error.strerror or error}", where=str(self._folders[0])
                ) from None
        # pip installs what does not depend on each other in the reverse order of names (its `_req_set_item_sorter`),
        # and with --no-deps nothing does: so the first name's files are the last that are written.
        packages = sorted(lock.packages, key=lambda package: package.name, reverse=True)
        found = [(package.name, self._known(package, target)) for package in packages]
        layers = [(name, path) for name, path in found if path is not None]
        if len(layers) < len(packages):
            raise ConvertError("layers of wheels went away while they were used", where=str(self._folders[0]))
        self._use(lock, target, [path for _, path in layers])
        self._tell(layers, target, len(missing))
        return [path for _, path in layers]

    def squash(
        self, lock: Lock, target: Target, interpreter: InterpreterSource | None = None, *, scratch: Path
    ) -> dict[str, HpcbinderError]:
        """Have squashed what can be had of a lock, as `layers` does, for environments to come.

        Returns:
            Package -> why it cannot be had.

        Raises:
            ConvertError: The store cannot be written.
        """
        try:
            self.layers(lock, target, interpreter, scratch=scratch)
            return {}
        except (BuildError, FetchError) as error:
            missing = self.missing(lock, target)
            if len(missing) == 1:
                return {missing[0].name: error}
        refused: dict[str, HpcbinderError] = {}
        for package in missing:
            try:
                self.layers(replace(lock, packages=(package,)), target, interpreter, scratch=scratch)
            except (BuildError, FetchError) as error:
                refused[package.name] = error
        return refused

    def fetch(self, lock: Lock, target: Target, *, scratch: Path) -> None:
        """Have the wheels that layers are still to be made of, for who makes them without a network.

        Args:
            scratch: Folder for unfinished files, on the file system of the store.

        Raises:
            FetchError: A wheel cannot be had, or is not what the lock says.
            ConvertError: The store cannot be written.
        """
        missing = self.missing(lock, target)
        if not missing:
            return
        folder, *below = self._folders
        self._reporter.phase("fetch", f"{len(missing)} wheel{'s' if len(missing) != 1 else ''} to be squashed")
        downloads = Downloads(folder, scratch, self._site, self._hosts, below)
        try:
            for path in (folder, folder / "layers"):
                make_folder(path)
            with ThreadPoolExecutor(FETCHES, thread_name_prefix="fetch") as pool:
                try:
                    wanted = [
                        pool.submit(have, each, target, downloads, self._chosen, self._reporter) for each in missing
                    ]
                    for each in wanted:
                        each.result()
                except BaseException:
                    downloads.stop()
                    pool.shutdown(cancel_futures=True)
                    raise
        except OSError as error:
            raise ConvertError(f"cannot keep wheels: {error.strerror or error}", where=str(folder)) from None

    def adopt(self, package: LockedPackage, target: Target, filename: str) -> None:
        """Take a wheel that was built, and lies in the folder already as `SHA256.whl`, for a package.

        Args:
            package: With the SHA-256 of that wheel alone.

        Raises:
            ConvertError: The store cannot be written.
        """
        digest = _only_hash(package)
        assert digest is not None
        try:
            self._chosen.add(package, target, filename, digest)
        except OSError as error:
            raise ConvertError(f"cannot keep wheels: {error.strerror}", where=str(self._folders[0])) from None

    def _use(self, lock: Lock, target: Target, layers: Sequence[Path]) -> None:
        """Have it known that what is ours of these is of use now: the rest goes in time (`hpcbinder.gc`)."""
        for path in layers:
            mark_used(path)
        for package in lock.packages:
            if _only_hash(package) is None:
                self._chosen.mark_used(package, target)

    def _tell(self, layers: Sequence[tuple[str, Path]], target: Target, made: int) -> None:
        wheels = f"{len(layers)} wheel{'s' if len(layers) != 1 else ''}"
        self._reporter.phase("convert", f"{wheels}: {made} squashed now, {len(layers) - made} there already")
        found = conflicts(layers, target)
        for path, names in found[:_SHOWN]:
            self._reporter.phase("convert", f"{path} is in {' and '.join(reversed(names))}; {names[-1]}'s stays")
        if len(found) > _SHOWN:
            self._reporter.phase("convert", f"{len(found) - _SHOWN} more files are in several wheels")

    def _known(self, package: LockedPackage, target: Target) -> Path | None:
        """A package's layer, if it is there: from what is on disk alone."""
        digest = _only_hash(package)
        if digest is None:
            chosen = self._chosen.find(package, target)
            if chosen is None:
                return None
            digest = chosen.sha256
        name = self._path(package, digest, target).name
        folder, *below = self._folders
        if (mine := folder / "layers" / name).exists():
            return mine
        places = ((each / "layers" / name, each.parent) for each in below)
        return next((path for path, store in places if vouched(path, store)), None)

    def _path(self, package: LockedPackage, digest: str, target: Target) -> Path:
        """Where a layer is to be."""
        place = [target.prefix, target.executable, target.interpreter, target.architecture, package.url, FORM]
        return self._folders[0] / "layers" / f"{digest}-{fingerprint(place)[:16]}-{self._options.key}.squashfs"

    def _make(
        self,
        packages: Sequence[LockedPackage],
        target: Target,
        interpreter: InterpreterSource | None,
        scratch: Path,
        jobs: int,
    ) -> None:
        folder, *below = self._folders
        for path in (folder, folder / "layers"):
            make_folder(path)
        places = Places(
            scratch=scratch,
            layer=lambda package, digest: self._path(package, digest, target),
            known=lambda package: self._known(package, target),
            lock=lambda package: folder / "layers" / f"{fingerprint([package, target])}.lock",
        )
        downloads = Downloads(folder, scratch, self._site, self._hosts, below)
        with Compilers(_interpreter(target, interpreter), target, jobs) as compilers:
            making = Making(target, downloads, self._chosen, compilers, self._options, places, self._reporter, jobs)
            making.make(packages)


def _only_hash(package: LockedPackage) -> str | None:
    """The SHA-256 of a package's wheel, where the lock leaves no choice."""
    known = [value[7:] for value in package.hashes if value.startswith("sha256:")]
    return known[0] if len(package.hashes) == len(known) == 1 else None


def _interpreter(target: Target, source: InterpreterSource | None) -> Interpreter:
    found = host_interpreter(target)
    if found is None and source is not None:
        found = source()
    if found is None:
        raise BuildError(
            f"nothing here makes bytecode for Python {target.python}",
            hint=f"install python{target.version[0]}.{target.version[1]} on this machine",
        )
    return found

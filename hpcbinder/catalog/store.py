"""The catalog: a writable store and read-only site stores below it.

A store is a folder:

    version               "1"
    images/ID/            a finished image: record.json and its formats
    layers/, bases/       caches of convert and bases, named by content
    wheels/               packages and what they became as layers (hpcbinder.wheels)
    blobs/                what layers became when they were pushed, named by DiffID
    pins/, interpreters/  what the room of bases found out once
    published/ID.json     what hubs are told of an image, modules/ID what its module needs (hpcbinder.register)
    registered/ID.json    kernels a person registered of a site's image
    pushed/ID.json        where a person pushed a site's image
    verified/ID.json      what came of running an image's notebooks
    logs/ID/RUN/          what was said while an image was built, or failed to be
    locks/, tmp/          of running processes

What is in `images/` is complete: a folder is filled in `tmp/` and renamed into place.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpcbinder.catalog.files import make_folder, publish, remove_tree, sync_folder, write_atomic, writing
from hpcbinder.catalog.logs import LogBook, runs
from hpcbinder.catalog.record import NAME, dump, load_entry, parse, relative_formats
from hpcbinder.catalog.scratch import clean, scratch
from hpcbinder.catalog.sweep import Item
from hpcbinder.catalog.vouching import vouched
from hpcbinder.errors import CatalogError
from hpcbinder.model import Entry, RegisteredKernel
from hpcbinder.text import one_line

_VERSION = 1
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")
_FOLDERS = ("images", "layers", "bases", "blobs", "registered", "pushed", "verified", "logs", "locks", "tmp")
_IN_USE = "in-use"
"""Held shared by all who work in the store, alone by who removes what nobody needs."""
_ASIDE = ".old-"
"""`images/.old-ID` holds an image while its successor is put in place."""


class Catalog:
    """The images of a person and of the sites below.

    Args:
        path: The writable store; made when first written to.
        site: Read-only stores; the writable one wins, then the first. One that is not there counts as empty.
    """

    def __init__(self, path: Path, site: Sequence[Path] = ()) -> None:
        self.path = path
        self.site = tuple(site)
        self._alone = False

    @property
    def layers_dir(self) -> Path:
        """Cache of squashed layers, there to be written to.

        Raises:
            CatalogError: The store cannot be written.
        """
        return self._prepared() / "layers"

    @property
    def layers_below(self) -> Sequence[Path]:
        """Squashed layers of the sites' stores, only to be read."""
        return [store / "layers" for store in self.site]

    @property
    def bases_dir(self) -> Path:
        """Cache of base images, there to be written to.

        Raises:
            CatalogError: The store cannot be written.
        """
        return self._prepared() / "bases"

    @property
    def blobs_dir(self) -> Path:
        """What registries know of layers, there to be written to.

        Raises:
            CatalogError: The store cannot be written.
        """
        return self._prepared() / "blobs"

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """A private scratch folder on the store's file system, removed at the end.

        What processes that were killed left behind is removed first. As long as it is there no layer or base goes away.

        Raises:
            CatalogError: The store cannot be written.
        """
        folder = self._prepared() / "tmp"
        clean(folder)
        with self.working(), scratch(folder) as path:
            yield path

    @contextmanager
    def job(self) -> Iterator[Path]:
        """A private folder in the store for what a job's nodes read, removed at the end.

        Jobs may take days: unlike `temporary` it keeps nothing from going away.

        Raises:
            CatalogError: The store cannot be written.
        """
        folder = self._prepared() / "tmp"
        clean(folder)
        with scratch(folder) as path:
            yield path

    @contextmanager
    def working(self) -> Iterator[None]:
        """Keep what is there from being removed by others as garbage; waits while they do that.

        Raises:
            CatalogError: The store cannot be written or has no locks.
        """
        if self._alone:  # another handle on the lock would wait for our own
            yield
            return
        self._prepared()
        with self._in_use(fcntl.LOCK_SH):
            yield

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Be the only one who works in the store: whoever begins to (`working`, `temporary`) waits until the body ends.

        Yields:
            False if others are at work now. Nobody is waited for.

        Raises:
            CatalogError: The store cannot be written or has no locks.
        """
        self._prepared()
        with self._in_use(fcntl.LOCK_EX | fcntl.LOCK_NB) as held:
            self._alone = held
            try:
                yield held
            finally:
                self._alone = False

    @contextmanager
    def _in_use(self, how: int) -> Iterator[bool]:
        path = self.path / "locks" / _IN_USE
        with writing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            with writing(path):
                try:
                    fcntl.flock(descriptor, how)
                    held = True
                except BlockingIOError:
                    held = False
            yield held
        finally:
            os.close(descriptor)

    @contextmanager
    def logged(self, id_: str, book: LogBook) -> Iterator[None]:
        """Keep what is said while the image `id_` is built; for who holds its `lock`.

        Raises:
            CatalogError: The store cannot be written.
        """
        with book.kept(self._prepared() / "logs" / _checked(id_)):
            yield

    def log(self, id_or_prefix: str, *, previous: bool = False) -> Path:
        """The newest log of an image, or of one that failed to be built; the only one whose id begins so.

        Args:
            previous: Of the build before.

        Returns:
            A folder to `read_log`.

        Raises:
            CatalogError: There is none, or several images' ids begin so.
        """
        ids = self.ids(logs=True)
        matches = [id_ for id_ in ids if id_or_prefix and id_.startswith(id_or_prefix)]
        if id_or_prefix not in matches and len(matches) != 1:
            raise _unclear(id_or_prefix, matches, ids)
        id_ = id_or_prefix if id_or_prefix in matches else matches[0]
        kept = next((found for store in (self.path, *self.site) if (found := runs(store / "logs" / id_))), ())
        if len(kept) <= previous:
            what = "only one log" if kept else "no log that you can read"
            raise CatalogError(f"there is {what} of {id_}", hint="each build keeps one, --rebuild makes a new one")
        return kept[-2 if previous else -1]

    @contextmanager
    def lock(self, id_: str, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the one right to build the image `id_`; wait while another process has it.

        A killed process lets go at once. Ask `find` once inside: the other may have done the work.

        Args:
            on_wait: Called once if somebody else has it.

        Raises:
            CatalogError: The store cannot be written or has no locks.
        """
        with self._locked(f"{_checked(id_)}.lock", on_wait):
            yield

    @contextmanager
    def _locked(self, name: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        from filelock import FileLock, Timeout

        path = self._prepared() / "locks" / name
        # The file stays: to remove one that others wait for would split them between two files.
        lock = FileLock(path, mode=0o644)
        with writing(path):
            try:
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    if on_wait is not None:
                        on_wait()
                    lock.acquire(poll_interval=0.1)
            except NotImplementedError as error:
                raise CatalogError(
                    "the store's file system has no file locks", where=str(path), hint="set store.path to another one"
                ) from error
        try:
            yield
        finally:
            lock.release()

    def find(self, id_: str) -> Entry | None:
        """The entry with exactly this id, or None.

        Raises:
            CatalogError: Its record is damaged or cannot be read.
        """
        if not _ID.fullmatch(id_):
            return None
        for store in (self.path, *self.site):
            if entry := self._load(store, id_):
                return entry
        return None

    def get(self, id_or_prefix: str) -> Entry:
        """The entry with this id, or the only one whose id begins with it.

        Raises:
            CatalogError: None or several, or a damaged record.
        """
        if entry := self.find(id_or_prefix):
            return entry
        ids = self._ids()
        matches = [id_ for id_ in ids if id_or_prefix and id_.startswith(id_or_prefix)]
        if len(matches) == 1 and (entry := self.find(matches[0])):
            return entry
        raise _unclear(id_or_prefix, matches, ids)

    def ids(self, *, logs: bool = False) -> Sequence[str]:
        """The ids there are, sorted; without a look at any record.

        Args:
            logs: Also those that only have a log, because they failed to be built.

        Raises:
            CatalogError: A store cannot be read.
        """
        ids = set(self._ids())
        for store in (self.path, *self.site) if logs else ():
            try:
                ids.update(name for name in os.listdir(store / "logs") if _ID.fullmatch(name))  # noqa: PTH208
            except OSError:
                continue  # none yet, or not ours to see
        return sorted(ids)

    def list(self, *, damaged: Callable[[CatalogError], None] | None = None) -> list[Entry]:
        """Every entry, newest first; of two stores that have the same id, the writable one's.

        Args:
            damaged: Gets what is wrong with a store or a record that cannot be read, which is then left out.

        Raises:
            CatalogError: A record is damaged or cannot be read, and `damaged` is None.
        """
        entries = []
        for id_ in self._ids(damaged):
            try:
                entry = self.find(id_)
            except CatalogError as error:
                if damaged is None:
                    raise
                damaged(error)
                continue
            if entry is not None:
                entries.append(entry)
        return sorted(entries, key=lambda entry: (-entry.created, entry.id))

    def own(self, entry: Entry) -> bool:
        """Whether an entry's image lies in the writable store."""
        return any(place.is_dir() for place in self._places(self.path, _checked(entry.id)))

    def folder(self, entry: Entry) -> Path:
        """The folder that an entry's files lie in.

        Raises:
            CatalogError: The image is not in the catalog (any more).
        """
        for store in (self.path, *self.site):
            for place in self._places(store, _checked(entry.id)):
                if all(Path(path).is_relative_to(place) for path in entry.formats.values()) and place.is_dir():
                    return place
        raise CatalogError(f"no image {entry.id} in the catalog (any more)")

    @contextmanager
    def running(self, entry: Entry) -> Iterator[None]:
        """Let others know that an image is being run, as far as its file system can: see `is_running`."""
        descriptors = []
        try:
            for path in entry.formats.values():
                try:
                    descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                    fcntl.flock(descriptors[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError:
                    continue
            yield
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def is_running(self, entry: Entry) -> bool:
        """Whether somebody runs an image (`running`)."""
        for path in entry.formats.values():
            try:
                # NFS wants a file open for writing, which a folder cannot be.
                way = os.O_RDONLY if Path(path).is_dir() else os.O_RDWR
                descriptor = os.open(path, way | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            except OSError:
                continue
            finally:
                os.close(descriptor)
        return False

    def add(self, entry: Entry, folder: Path) -> Entry:
        """Move a finished image in place, atomically, instead of one that may be there.

        Args:
            entry: Its formats are paths in `folder`, absolute or relative to it.
            folder: On the store's file system: in `temporary()`. It is gone afterwards.

        Returns:
            The entry with its paths in the store.

        Raises:
            CatalogError: A format is not in `folder`, or the store cannot be written.
        """
        record = relative_formats(entry, folder)
        images = self._prepared() / "images"
        target, aside = self._places(self.path, _checked(entry.id))
        with writing(self.path):
            write_atomic(folder / NAME, dump(record))
            publish(folder)
            with self._locked("records"):
                self._settle(entry.id)
                if target.exists():
                    target.rename(aside)
                folder.rename(target)
                sync_folder(images)
            remove_tree(aside)
        return self._loaded(entry.id)

    def update(self, entry: Entry) -> Entry:
        """Keep what changes once an image is made: its registered kernels.

        Those of a site's image are kept in the writable store.

        Raises:
            CatalogError: The image is not in the catalog (any more), or the store cannot be written.
        """
        id_ = _checked(entry.id)
        with self._locked("records"), writing(self.path):
            self._settle(id_)
            own = self._load(self.path, id_)
            if own is not None:
                folder = self.path / "images" / id_
                changed = dataclasses.replace(own, registered=entry.registered)
                write_atomic(folder / NAME, dump(relative_formats(changed, folder)))
            elif self.find(id_) is None:
                raise CatalogError(f"no image {id_} in the catalog (any more)")
            elif entry.registered:
                write_atomic(self._registered(id_), dump(entry.registered))
            else:
                self._registered(id_).unlink(missing_ok=True)
        return self._loaded(id_)

    def pushed(self, id_: str, reference: str, digest: str) -> Entry:
        """Keep that an image was pushed; of a site's image in the writable store.

        Raises:
            CatalogError: The image is not in the catalog (any more), or the store cannot be written.
        """
        with self._locked("records"), writing(self.path):
            self._settle(_checked(id_))
            own = self._load(self.path, id_)
            found = own or self.find(id_)
            if found is None:
                raise CatalogError(f"no image {id_} in the catalog (any more)")
            pushed = {**found.pushed, reference: digest}
            if own is not None:
                folder = self.path / "images" / id_
                write_atomic(folder / NAME, dump(relative_formats(dataclasses.replace(own, pushed=pushed), folder)))
            else:
                write_atomic(self.path / "pushed" / f"{id_}.json", dump(pushed))
        return self._loaded(id_)

    def keep_verified(self, id_: str, found: Mapping[str, str]) -> None:
        """Keep what came of running an image's notebooks; of a site's image in the writable store, too.

        Args:
            found: Its `digest` says of which image: one that is built anew has the same id.

        Raises:
            CatalogError: The image is not in the catalog (any more), or the store cannot be written.
        """
        with self._locked("records"), writing(self.path):
            if self.find(_checked(id_)) is None:
                raise CatalogError(f"no image {id_} in the catalog (any more)")
            write_atomic(self._verified(id_), dump(found))

    def verified(self, entry: Entry) -> Mapping[str, str]:
        """What was kept of this very image, {} for nothing that can be read."""
        try:
            found: Mapping[str, str] = self._own(self._verified(_checked(entry.id)), Mapping[str, str], {})
        except CatalogError:
            return {}
        return found if found.get("digest") == entry.config.digest else {}

    def remove(self, id_: str) -> None:
        """Remove an image. Layers and bases that others may share stay.

        Raises:
            CatalogError: No such image, a site's image, or the store cannot be written.
        """
        with writing(self.path):
            here = _ID.fullmatch(id_) and any(place.is_dir() for place in self._places(self.path, id_))
        if not here:
            if (entry := self.find(id_)) is not None:
                place = next(s for s in self.site if self._load(s, id_) is not None)
                raise CatalogError(f"{entry.id} belongs to the site's store and is read-only", where=str(place))
            raise CatalogError(f"no image {one_line(id_, 80)!r} in the catalog")
        with self.temporary() as trash, self._locked("records"), writing(self.path):
            self._settle(id_)
            (self.path / "images" / id_).rename(trash / "image")
            sync_folder(self.path / "images")
            remove_tree(self.path / "logs" / id_)
            self._verified(id_).unlink(missing_ok=True)

    def discard(self, items: Sequence[Item]) -> None:
        """Remove some of the store's `items`, for who is `alone` in it; each is gone at once for whoever looks.

        Raises:
            CatalogError: The store cannot be written.
        """
        with self.temporary() as trash, writing(self.path):
            for number, item in enumerate(items):
                if item.path.is_dir() and not item.path.is_symlink():
                    try:
                        item.path.rename(trash / str(number))
                        continue
                    except FileNotFoundError:  # a killed process's folder: `temporary` was faster
                        continue
                item.path.unlink(missing_ok=True)

    def settle(self) -> None:
        """Finish what processes left that were killed in the middle of `add`.

        Raises:
            CatalogError: The store cannot be written.
        """
        with self._locked("records"), writing(self.path):
            for id_ in self._ids():
                self._settle(id_)

    def _prepared(self) -> Path:
        """The writable store, with its folders."""
        with writing(self.path):
            if not (self.path / "version").exists():
                make_folder(self.path)
                write_atomic(self.path / "version", f"{_VERSION}\n".encode())
            _check_version(self.path)
            for name in _FOLDERS:
                make_folder(self.path / name)
        return self.path

    def _ids(self, damaged: Callable[[CatalogError], None] | None = None) -> Sequence[str]:
        ids: set[str] = set()
        for store in (self.path, *self.site):
            try:
                names = os.listdir(store / "images")  # noqa: PTH208 (names, not paths)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                unreadable = CatalogError(f"cannot read the store: {error.strerror}", where=str(store))
                if damaged is None:
                    raise unreadable from error
                damaged(unreadable)
                continue
            ids.update(id_ for name in names if _ID.fullmatch(id_ := name.removeprefix(_ASIDE)))
        return sorted(ids)

    def _places(self, store: Path, id_: str) -> tuple[Path, Path]:
        """Where the image is, and where it waits while its successor is put in place."""
        return store / "images" / id_, store / "images" / f"{_ASIDE}{id_}"

    def _load(self, store: Path, id_: str) -> Entry | None:
        folder, aside = self._places(store, id_)
        # A successor may come between the looks at the two places.
        places = (place for place in (folder, aside, folder) if store == self.path or vouched(place, store))
        entry = next((entry for place in places if (entry := load_entry(place))), None)
        if entry is None:
            return None
        _check_version(store)
        if entry.id != id_:
            raise CatalogError("damaged record: it is another image's", where=str(store / "images" / id_ / NAME))
        if store != self.path:
            entry = dataclasses.replace(entry, registered=self._own_kernels(id_), pushed=self._own_pushes(id_))
        return entry

    def _loaded(self, id_: str) -> Entry:
        entry = self.find(id_)
        if entry is None:
            raise CatalogError(f"{id_} was removed meanwhile")
        return entry

    def _registered(self, id_: str) -> Path:
        return self.path / "registered" / f"{id_}.json"

    def _verified(self, id_: str) -> Path:
        return self.path / "verified" / f"{id_}.json"

    def _own_kernels(self, id_: str) -> tuple[RegisteredKernel, ...]:
        kernels: tuple[RegisteredKernel, ...] = self._own(self._registered(id_), tuple[RegisteredKernel, ...], ())
        return kernels

    def _own_pushes(self, id_: str) -> Mapping[str, str]:
        pushes: Mapping[str, str] = self._own(self.path / "pushed" / f"{id_}.json", Mapping[str, str], {})
        return pushes

    def _own(self, path: Path, kind: Any, nothing: Any) -> Any:
        """What a person keeps about a site's image."""
        try:
            raw = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return nothing
        except OSError as error:
            raise CatalogError(f"cannot be read: {error.strerror}", where=str(path)) from error
        return parse(raw, kind, path)

    def _settle(self, id_: str) -> None:
        """Finish what a process killed in the middle of `add` left."""
        folder, aside = self._places(self.path, id_)
        if not aside.exists():
            return
        if folder.exists():
            remove_tree(aside)
        else:
            aside.rename(folder)


def _unclear(asked: str, matches: Sequence[str], ids: Sequence[str]) -> CatalogError:
    shown = one_line(asked, 80)
    if len(matches) > 1:
        some = ", ".join(matches[:5]) + (", …" if len(matches) > 5 else "")
        return CatalogError(f"{shown} is the beginning of {len(matches)} images", hint=some)
    return CatalogError(f"no image {shown!r} in the catalog", hint=_hint(shown, ids))


def _checked(id_: str) -> str:
    if not _ID.fullmatch(id_):
        raise CatalogError(f"{one_line(id_, 80)!r} cannot be an image's id")
    return id_


def _check_version(store: Path) -> None:
    path = store / "version"
    try:
        text = path.read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return
    except OSError as error:
        raise CatalogError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if text != str(_VERSION):
        raise CatalogError(
            f"the store has version {one_line(text, 20)!r}, this hpcbinder reads {_VERSION}",
            where=str(path),
            hint="use the hpcbinder that made it, or set store.path to another folder",
        )


def _hint(asked: str, ids: Sequence[str]) -> str:
    import difflib

    if not ids:
        return "it is empty; make one with hpcbinder build"
    close = difflib.get_close_matches(asked, ids, n=3, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else "hpcbinder list shows them"

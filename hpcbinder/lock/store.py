"""Locks that were found before, kept in the catalog's store: the same inputs give the same lock until --refresh."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.catalog import dump, make_folder, parse, write_atomic
from hpcbinder.errors import CatalogError
from hpcbinder.lock.record import sound
from hpcbinder.model import Lock, fingerprint

FOLDER = "resolved"

NEWEST = 200
"""Locks looked at for one whose layers a new one could stand on."""

_LIMIT = 8 << 20


@dataclass(frozen=True)
class Kept:
    """What a file of the store holds: which inputs (their fingerprint) were resolved to what."""

    key: str
    lock: Lock


class LockStore:
    """The folder of kept locks, one for each Python and platform. A file that is damaged is one that is not there.

    Two processes may write at once: each file is replaced whole.

    Args:
        store: The catalog's folder. If it is not there, or cannot be written, nothing is kept.
        python: `X.Y`.
        platform: As uv names it.
    """

    def __init__(self, store: Path, *, python: str, platform: str) -> None:
        self._store = store
        self._folder = store / FOLDER / f"{platform}-{python}"

    def find(self, key: str) -> Lock | None:
        """The lock of these inputs, or of this source."""
        kept = _load(self._path(key))
        return kept.lock if kept is not None and kept.key == key else None

    def newest(self) -> Iterator[Lock]:
        """Kept locks, newest first."""
        dated = []
        try:
            for path in self._folder.iterdir():
                if path.suffix == ".json":
                    dated.append((path.stat().st_mtime_ns, path.name, path))
        except OSError:
            pass
        for _, _, path in sorted(dated, reverse=True)[:NEWEST]:
            kept = _load(path)
            if kept is not None:
                yield kept.lock

    def add(self, key: str, lock: Lock) -> None:
        """Keep a lock; nothing happens where nothing can be kept."""
        if not self._store.is_dir():
            return
        try:
            make_folder(self._folder)
            write_atomic(self._path(key), dump(Kept(key, lock)))
        except OSError:
            return

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def inputs_key(*values: object) -> str:
    """Names what was resolved: equal inputs, equal key."""
    return fingerprint(list(values))


def _load(path: Path) -> Kept | None:
    try:
        with path.open("rb") as file:
            raw = file.read(_LIMIT + 1)
        if len(raw) > _LIMIT:
            return None
        kept: Kept = parse(raw, Kept, path)
    except (OSError, CatalogError):
        return None
    return kept if sound(kept.lock) else None

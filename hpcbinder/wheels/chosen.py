"""Which wheel a locked package was found to be, so that the index is not asked again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.catalog import dump, make_folder, mark_used, parse, vouched, write_atomic
from hpcbinder.errors import CatalogError
from hpcbinder.model import LockedPackage, fingerprint
from hpcbinder.wheels.index import rank_of
from hpcbinder.wheels.target import Target

_LIMIT = 1 << 16


@dataclass(frozen=True)
class Chosen:
    """A wheel.

    Attributes:
        key: Names the package, its hashes and the target.
        filename: As the index calls it.
        sha256: Of the file, hex.
    """

    key: str
    filename: str
    sha256: str


class ChosenStore:
    """A folder of small files, one for each package and platform. One that is damaged is one that is not there.

    Args:
        folder: Where new ones are written.
        below: Folders of others, where they may be too.
    """

    def __init__(self, folder: Path, below: Sequence[Path] = ()) -> None:
        self._folder = folder
        self._below = tuple(below)

    def find(self, package: LockedPackage, target: Target) -> Chosen | None:
        """The wheel that was chosen before."""
        key = _key(package, target)
        for folder in (self._folder, *self._below):
            path = folder / f"{key}.json"
            if folder != self._folder and not vouched(path, folder.parent.parent):
                continue
            found = _load(path)
            if found is None or found.key != key:
                continue
            rank = rank_of(found.filename, package, target)
            known = [value[7:] for value in package.hashes if value.startswith("sha256:")]
            if rank is not None and rank[0] >= 0 and (not known or found.sha256 in known):
                return found
        return None

    def mark_used(self, package: LockedPackage, target: Target) -> None:
        """Have it known that a choice is of use now."""
        mark_used(self._folder / f"{_key(package, target)}.json")

    def add(self, package: LockedPackage, target: Target, filename: str, sha256: str) -> Chosen:
        """Remember a choice.

        Raises:
            OSError: It cannot be written.
        """
        key = _key(package, target)
        make_folder(self._folder)
        chosen = Chosen(key, filename, sha256)
        write_atomic(self._folder / f"{key}.json", dump(chosen))
        return chosen


def _key(package: LockedPackage, target: Target) -> str:
    return fingerprint([package, target.version, target.platform])


def _load(path: Path) -> Chosen | None:
    try:
        with path.open("rb") as file:
            raw = file.read(_LIMIT + 1)
        if len(raw) > _LIMIT:
            return None
        found: Chosen = parse(raw, Chosen, path)
    except (OSError, CatalogError):
        return None
    return found if len(found.sha256) == 64 and set(found.sha256) <= set("0123456789abcdef") else None

"""What images have in common, and what that saves: `hpcbinder stats`. Nothing is changed.

A layer (of a base, the notebook server, a package) is squashed once and kept once, whichever images it is in. The
images' own files are copies of the layers' bytes, so that each can be moved and run by itself; on a file system with
reflinks (XFS, btrfs) they share the disk's blocks with the layers all the same, elsewhere they do not.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpcbinder.catalog import Catalog, Item, items, shared_bytes, size_on_disk
from hpcbinder.errors import CatalogError
from hpcbinder.model import Entry

KINDS = {
    "layer": "layers of bases and engines' images",
    "made": "layers made of packages (server, steps)",
    "package": "squashed packages",
    "wheel": "downloaded packages",
    "base": "bases",
    "other": "logs, locks, leftovers",
}
"""Kind of what a store holds besides images -> it, for a person. What is in several images is of the first three."""

_LAYERS = ("layer", "made", "package")


@dataclass(frozen=True)
class Kind:
    """One kind of what the store holds.

    Attributes:
        files: How many there are.
        size: Bytes they take on disk.
        used: How many of them images of the catalog were made of.
        uses: In how many images they are, taken together.
        saved: Bytes that would be squashed and kept again, had each image its own.
    """

    files: int
    size: int
    used: int = 0
    uses: int = 0
    saved: int = 0


@dataclass(frozen=True)
class Shared:
    """A package that images have in common.

    Attributes:
        name: As the locks have it; a digest's beginning where none does.
        version: "" where no lock says.
        images: How many have it.
        size: Bytes of its layer.
    """

    name: str
    version: str
    images: int
    size: int

    @property
    def saved(self) -> int:
        """Bytes that it would take besides, had each image its own."""
        return (self.images - 1) * self.size


@dataclass
class Statistics:
    """What there is.

    Attributes:
        store: The writable store.
        images: How many images of the catalog lie in it.
        formats: Format -> bytes of the files, as they are listed.
        alone: Bytes of all images, were each one SIF.
        files: Bytes that the images' folders take on disk, each file counted once.
        reflinked: Bytes of the images' files that lie where other files' data lie too; None where that is not to be
            seen.
        layers: Bytes of the different layers that the images were made of and that are kept.
        kinds: Of `KINDS`.
        packages: Those that several images have, what saves most first.
    """

    store: Path
    images: int = 0
    formats: dict[str, int] = field(default_factory=dict)
    alone: int = 0
    files: int = 0
    reflinked: int | None = None
    layers: int = 0
    kinds: dict[str, Kind] = field(default_factory=dict)
    packages: list[Shared] = field(default_factory=list)

    @property
    def saved(self) -> int:
        """Bytes of layers that were squashed once and are in several images."""
        return sum(kind.saved for kind in self.kinds.values())


def statistics(catalog: Catalog) -> Statistics:
    """Look through the writable store of a catalog.

    Raises:
        CatalogError: It cannot be read.
    """
    damaged: list[CatalogError] = []
    entries = [entry for entry in catalog.list(damaged=damaged.append) if catalog.own(entry)]
    found = Statistics(catalog.path, images=len(entries))
    seen: Counter[str] = Counter()
    told: list[int | None] = []
    for entry in entries:
        found.alone += entry.size
        found.files += size_on_disk(catalog.path / "images" / entry.id)
        seen.update(set(entry.config.diff_ids))
        for form, path in entry.formats.items():
            found.formats[form] = found.formats.get(form, 0) + _length(Path(path))
        told += [shared_bytes(path) for path in {Path(path) for path in entry.formats.values()} if path.is_file()]
    if told and None not in told:
        found.reflinked = sum(each or 0 for each in told)
    kept = list(items(catalog.path))
    for kind in KINDS:
        found.kinds[kind] = _kind([item for item in kept if _group(item) == kind], seen)
    found.layers = sum(item.size for item in kept if item.kind in _LAYERS and _identity(item) in seen)
    found.packages = _packages([item for item in kept if item.kind == "package"], seen, _names(entries))
    return found


def _kind(found: Sequence[Item], seen: Mapping[str, int]) -> Kind:
    uses = [(item.size, seen.get(_identity(item), 0)) for item in found]
    return Kind(
        files=len(found),
        size=sum(item.size for item in found),
        used=sum(1 for _, count in uses if count),
        uses=sum(count for _, count in uses),
        saved=sum(size * (count - 1) for size, count in uses if count > 1),
    )


def _group(item: Item) -> str:
    return item.kind if item.kind in KINDS else "other"


def _identity(item: Item) -> str:
    """What an image's `diff_ids` calls a layer of its own: a squashed package by its file's name."""
    if item.kind == "package":
        return f"sha256:{hashlib.sha256(item.path.name.encode()).hexdigest()}"
    return f"sha256:{item.name}" if item.kind in _LAYERS else ""


def _names(entries: Iterable[Entry]) -> dict[str, tuple[str, str]]:
    """SHA-256 (hex) of a package's file -> its name and version, of all that the images' locks name."""
    return {
        value.removeprefix("sha256:"): (package.name, package.version)
        for entry in entries
        for lock in entry.locks
        for package in lock.packages
        for value in package.hashes
    }


def _packages(found: Iterable[Item], seen: Mapping[str, int], names: Mapping[str, tuple[str, str]]) -> list[Shared]:
    shared = []
    for item in found:
        images = seen.get(_identity(item), 0)
        if images > 1:
            digest = item.path.name.partition("-")[0]
            name, version = names.get(digest, (digest[:12], ""))
            shared.append(Shared(name, version, images, item.size))
    return sorted(shared, key=lambda each: (-each.saved, each.name))


def _length(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else size_on_disk(path)
    except OSError:
        return 0

"""Removing what nothing needs any more: from the store, and from the engine.

Never what a kernel or a module points at, or what hubs are offered. Everything but images is a cache or a leftover: to
lose one costs time at the next build, no more. While anybody builds in the store nothing goes but what dead processes
left (`Catalog.alone`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hpcbinder.catalog import PACKAGES, Catalog, Item, items, size_on_disk
from hpcbinder.config import Config
from hpcbinder.engine import Engine, tools_tag
from hpcbinder.errors import BuildError, ConvertError
from hpcbinder.image import DockerArchive
from hpcbinder.model import Entry
from hpcbinder.progress import Reporter
from hpcbinder.register import is_published, kernels_folder, module_of, pointing_kernels

TAGS = "localhost/hpcbinder/"
"""How the names of all our images in an engine begin."""

CACHE_AGE = 30 * 24 * 3600.0
"""Age (s) at which a cache that can be made anew, or the log of a failed build, is old if nobody says otherwise."""


@dataclass(frozen=True)
class Wish:
    """What a person wants removed.

    Attributes:
        images: Also images that no kernel points at.
        age: Only what is at least so old (s). None: images, bases, packages, logs and the engine's from `CACHE_AGE` on,
            squashed layers and leftovers at any age.
        keep: Ids of images that stay.
        unused: Only packages and layers that nothing used for so long (s), these then also if an image has them; None
            for what `age` says.
        dry_run: Only say what would go.
    """

    images: bool = False
    age: float | None = None
    keep: frozenset[str] = frozenset()
    dry_run: bool = False
    unused: float | None = None


@dataclass(frozen=True)
class Removed:
    """One thing that went, or would go.

    Attributes:
        kind: `image`, `layer`, `made` (a layer that was made without an image's tar), `base`, `wheel`, `package`,
            `choice`, `list`, `log`, `lock`, `leftover`, `tag`.
        name: Id, file's name, or tag.
        size: Bytes; of a tag all of its layers, also those that others share.
        reason: Why nothing needs it.
    """

    kind: str
    name: str
    size: int
    reason: str


@dataclass
class Report:
    """What was done.

    Attributes:
        kept: Images that were old enough: id -> why they stay.
        notes: What could not be looked at or removed.
        busy: Others work in the store: only leftovers went.
    """

    dry_run: bool
    removed: list[Removed] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    busy: bool = False

    @property
    def size(self) -> int:
        """Bytes that are free now in the store; an engine frees what it sees fit."""
        return sum(removed.size for removed in self.removed if removed.kind != "tag")


def collect(wish: Wish, catalog: Catalog, config: Config, engine: Engine | None, reporter: Reporter) -> Report:
    """Remove what nothing needs.

    Args:
        engine: Whose images are looked through as well.

    Raises:
        CatalogError: The store cannot be read or written.
    """
    report = Report(wish.dry_run)
    with catalog.alone() as alone:
        report.busy = not alone
        if alone and not wish.dry_run:
            catalog.settle()
        entries = catalog.list(damaged=lambda error: report.notes.append(str(error)))
        gone = {entry.id for entry in _images(wish, entries, catalog, config, report)} if alone else set()
        left = [entry for entry in entries if entry.id not in gone]
        _store(wish, left, catalog, report, reporter)
        if alone and engine is not None:
            # Kernels of other stores count here, too: Docker runs them by their tags.
            pointed = pointing_kernels(entries, [kernels_folder(config)]).ids
            _engine(wish, left, {*catalog.ids(), *pointed} - gone, gone, engine, report, reporter)
    return report


def _images(wish: Wish, entries: Sequence[Entry], catalog: Catalog, config: Config, report: Report) -> Iterator[Entry]:
    if not wish.images:
        return
    pointing = pointing_kernels(entries, [kernels_folder(config)])
    limit = time.time() - (CACHE_AGE if wish.age is None else wish.age)
    for entry in entries:
        if not catalog.own(entry) or entry.created > limit:
            continue
        kernel = pointing.at(entry)
        if kernel is not None:
            report.kept[entry.id] = f"kernel {kernel}"
        elif is_published(catalog, entry.id):
            report.kept[entry.id] = "offered to hubs"
        elif (module := module_of(catalog, entry.id)) is not None:
            report.kept[entry.id] = f"module {module}"
        elif catalog.is_running(entry):
            report.kept[entry.id] = "it is being run"
        elif entry.id in wish.keep:
            report.kept[entry.id] = "asked for"
        else:
            size = size_on_disk(catalog.path / "images" / entry.id)
            if not wish.dry_run:
                catalog.remove(entry.id)
            report.removed.append(Removed("image", entry.id, size, "no kernel points at it"))
            yield entry


def _store(wish: Wish, entries: Sequence[Entry], catalog: Catalog, report: Report, reporter: Reporter) -> None:
    ids = {*catalog.ids(), *(entry.id for entry in entries)} - {r.name for r in report.removed if r.kind == "image"}
    layers = {diff_id.removeprefix("sha256:") for entry in entries for diff_id in entry.config.diff_ids}
    found = list(items(catalog.path))
    used = {item.name: item.changed for item in found if item.kind == "layer"}
    bases = {item.path: _layers_of(item.path) for item in found if item.kind == "base"}
    # A base is of use as long as its squashed layers are, and those stay as long as it does: the next image has them.
    found = [_with_layers(item, bases, used) for item in found]
    based = {name for item in found if item.kind == "base" and not _old(item, wish) for name in bases[item.path]}
    going = []
    for item in found:
        reason = _reason(item, wish, ids, layers, based, bases)
        if reason is None or (report.busy and not _is_dead(item, catalog)):
            continue
        going.append(item)
        report.removed.append(Removed(item.kind, item.path.name, item.size, reason))
    if going and not wish.dry_run:
        reporter.phase("remove", f"{len(going)} files and folders of {catalog.path}")
        catalog.discard(going)


def _is_dead(item: Item, catalog: Catalog) -> bool:
    return item.kind == "leftover" and item.path.parent == catalog.path / "tmp"


def _with_layers(item: Item, bases: Mapping[Path, set[str]], used: Mapping[str, float]) -> Item:
    times = [used[name] for name in bases.get(item.path, ()) if name in used]
    return replace(item, changed=max(item.changed, *times)) if times else item


def _old(item: Item, wish: Wish) -> bool:
    """Whether a cache that can be made anew was not used for long."""
    limit = wish.age if wish.unused is None or item.kind in ("base", "log") else wish.unused
    return time.time() - item.changed >= (CACHE_AGE if limit is None else limit)


def _reason(
    item: Item,
    wish: Wish,
    ids: Collection[str],
    layers: Collection[str],
    based: Collection[str],
    bases: Mapping[Path, set[str]],
) -> str | None:
    if item.kind == "leftover":
        return "of a process that was killed"
    if item.kind == "lock":
        return "nobody waits on it" if item.name not in ids else None
    old = _old(item, wish)
    if item.kind == "layer":
        if wish.unused is not None:
            # Nor do images need theirs: these are files of their own.
            return "not used for long" if old else None
        age = time.time() - item.changed
        return "in no image of the catalog" if item.name not in {*layers, *based} and age >= (wish.age or 0) else None
    if item.kind in (*PACKAGES, "made"):
        # No image needs them, and the next one may: they were used when a file's time says so.
        return "not used for long" if old else None
    if item.kind == "log":
        return "of no image of the catalog" if item.name not in ids and old else None
    return "in no image of the catalog" if old and not bases[item.path] & {*layers} else None


def _layers_of(base: Path) -> set[str]:
    """DiffIDs (hex) of a kept base; none if it cannot be read."""
    try:
        archives = [path for path in base.iterdir() if path.suffix == ".tar"]
        found = [diff_id for path in archives for diff_id in DockerArchive(path).config.diff_ids]
    except (ConvertError, OSError):
        return set()
    return {diff_id.removeprefix("sha256:") for diff_id in found}


def _engine(
    wish: Wish,
    entries: Sequence[Entry],
    ids: Collection[str],
    gone: Collection[str],
    engine: Engine,
    report: Report,
    reporter: Reporter,
) -> None:
    """Tags that no image of the catalog is, or stands on, and that are old: other stores may use the same engine."""
    names = {entry.image["name"] for entry in entries} | {_tag(id_) for id_ in ids} | {tools_tag()}
    stacks = [entry.config.diff_ids for entry in entries]
    limit = time.time() - (CACHE_AGE if wish.age is None else wish.age)
    theirs = {_tag(id_) for id_ in gone}
    try:
        for tag, size, created in engine.tags():
            if not tag.startswith(TAGS) or tag in names or (created > limit and tag not in theirs):
                continue
            try:
                image = engine.image(tag)
                if image is None or any(image.config.diff_ids == s[: len(image.config.diff_ids)] for s in stacks):
                    continue
                if not wish.dry_run:
                    reporter.phase("remove", f"{tag} of {engine.name}")
                    engine.remove(tag)
            except BuildError as error:
                report.notes.append(str(error))
                continue
            report.removed.append(Removed("tag", tag, size, f"{engine.name} has it for no image of the catalog"))
    except BuildError as error:
        report.notes.append(str(error))


def _tag(id_: str) -> str:
    """The name the image of an id has in an engine (see `builders`)."""
    name, _, version = id_.rpartition("-")
    return f"{TAGS}{name}:{version}"


def check_keep(words: Sequence[str], catalog: Catalog) -> frozenset[str]:
    """The ids that `--keep` names.

    Raises:
        CatalogError: There is no such image; then nothing may be removed.
    """
    return frozenset(catalog.get(word).id for word in words)

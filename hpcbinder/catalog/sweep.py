"""What lies in a store and is no image: caches, logs, locks, and what killed processes left. `gc` judges what goes."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.catalog.scratch import dead

PACKAGES = ("wheel", "package", "choice", "list")
"""Kinds of what is kept of packages: they are needed as long as they are used."""

_READ = (*PACKAGES, "layer", "made")
"""Kinds of files whose reading is a use."""

_LAYER = re.compile(r"([0-9a-f]{64})-[A-Za-z0-9-]+\.(squashfs|lock)")
_WHEEL = re.compile(r"[0-9a-f]{64}\.(whl|package)")
_PACKAGE = re.compile(r"[0-9a-f]{64}-[0-9a-f]{16}-[A-Za-z0-9-]+\.squashfs")
_PACKAGE_LOCK = re.compile(r"[0-9a-f]{64}\.lock")
_CHOICE = re.compile(r"[0-9a-f]{64}\.json")
_SOURCE = re.compile(r"[0-9a-f]{64}\.(tar\.gz|zip)")
_LIST = re.compile(r"[0-9a-f]{64}\.xz")
_SET = re.compile(r"[0-9a-f]{64}-[0-9a-f]{64}\.json")
_LOG = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")
_LOCK = re.compile(r"([a-z0-9][a-z0-9-]{0,79})\.lock")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")
"""Of `files.write_atomic`."""
_DOWNLOAD = re.compile(r"\.[0-9a-f]{16}\.tmp")


@dataclass(frozen=True)
class Item:
    """Something in a store.

    Attributes:
        kind: `layer`, `made` (a layer that is of no image's tar: the notebook server's, a step's), `base`, `wheel`,
            `package` (a squashed wheel), `choice` (which wheel a locked package is, which Debian packages
            are meant or were installed), `list` (of Debian's packages), `log`, `lock`, or `leftover` of a
            process that was killed.
        name: DiffID of a layer, or what stands for it (hex), id of the image of a log or lock; else the file's name.
        path: Where it is.
        size: Bytes it takes on disk.
        changed: Unix time (s) it was last written to; of layers and `PACKAGES`, used.
    """

    kind: str
    name: str
    path: Path
    size: int
    changed: float


def items(store: Path) -> Iterator[Item]:
    """What there is besides images. What cannot be looked at, or is not known, is left out.

    Only while nobody else works in the store is all that is called a leftover one.
    """
    for path in dead(store / "tmp"):
        yield _item("leftover", path.name, path)
    for path in _inside(store / "layers"):
        if match := _LAYER.fullmatch(path.name):
            kind = "made" if path.stem.endswith("-made") else "layer"
            yield _item(kind if match[2] == "squashfs" else "leftover", match[1], path)
    for path in _inside(store / "bases"):
        if path.name.startswith("."):
            # `.KEY.lock` of making a base, `.KEY-…` what a killed process made of one
            yield _item("lock" if path.name.endswith(".lock") else "leftover", path.name, path)
        else:
            yield _item("base", path.name, path)
    yield from _wheels(store / "wheels")
    yield from _wheels(store / "built")
    yield from _wheels(store / "conda")
    yield from _debian(store / "debian")
    for path in _inside(store / "logs"):
        if _LOG.fullmatch(path.name):
            yield _item("log", path.name, path)
    for path in _inside(store / "locks"):
        if match := _LOCK.fullmatch(path.name):
            yield _item("lock", match[1], path)
    for folder in (
        store,
        store / "registered",
        store / "verified",
        *_inside(store / "images"),
        *_inside(store / "resolved"),
    ):
        for path in _inside(folder):
            if _TEMPORARY.fullmatch(path.name):
                yield _item("leftover", path.name, path)


def _wheels(folder: Path) -> Iterator[Item]:
    """What is kept of packages (`hpcbinder.wheels`, `hpcbinder.conda`), by what its files are called."""
    kinds = {
        "": ((_WHEEL, "wheel"), (_DOWNLOAD, "leftover")),
        "layers": ((_PACKAGE, "package"), (_PACKAGE_LOCK, "leftover")),
        "chosen": ((_CHOICE, "choice"), (_TEMPORARY, "leftover")),
        "records": ((_CHOICE, "choice"), (_TEMPORARY, "leftover")),
        "sources": ((_SOURCE, "wheel"),),
    }
    yield from _kept(folder, kinds)


def _debian(folder: Path) -> Iterator[Item]:
    """What is kept of sets of Debian packages (`hpcbinder.apt`); what was installed is a layer."""
    kinds = {
        "lists": ((_LIST, "list"),),
        "resolved": ((_CHOICE, "choice"), (_TEMPORARY, "leftover")),
        "sets": ((_SET, "choice"), (_TEMPORARY, "leftover")),
    }
    yield from _kept(folder, kinds)


def _kept(folder: Path, kinds: Mapping[str, tuple[tuple[re.Pattern[str], str], ...]]) -> Iterator[Item]:
    """Files of some folders: folder -> (how its files are called, what they are)."""
    for name, patterns in kinds.items():
        for path in _inside(folder / name):
            for pattern, kind in patterns:
                if pattern.fullmatch(path.name):
                    yield _item(kind, path.name, path)


def size(path: Path) -> int:
    """Bytes that a file or folder takes on disk; a file with several names in it counts once."""
    try:
        about = path.lstat()
    except OSError:
        return 0
    total, seen, waiting = about.st_blocks * 512, set[tuple[int, int]](), [path] if stat.S_ISDIR(about.st_mode) else []
    while waiting:
        for entry in _scan(waiting.pop()):
            try:
                about = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if about.st_nlink > 1 and not stat.S_ISDIR(about.st_mode):
                if (about.st_dev, about.st_ino) in seen:
                    continue
                seen.add((about.st_dev, about.st_ino))
            total += about.st_blocks * 512
            if stat.S_ISDIR(about.st_mode):
                waiting.append(Path(entry.path))
    return total


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _inside(folder: Path) -> list[Path]:
    return sorted(Path(entry.path) for entry in _scan(folder))


def _item(kind: str, name: str, path: Path) -> Item:
    try:
        about = path.lstat()
    except OSError:
        return Item(kind, name, path, 0, 0.0)
    # Others may use a site's packages who may not mark them; most file systems note that, to the day.
    changed = max(about.st_mtime, about.st_atime) if kind in _READ else about.st_mtime
    return Item(kind, name, path, size(path), changed)

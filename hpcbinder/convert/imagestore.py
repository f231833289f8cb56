"""A folder as containers/storage keeps images in with its overlay driver, for the use of podman-hpc.

`overlay-images/images.json` and `overlay-layers/layers.json` list what there is (containers/storage images.go,
layers.go), `overlay/` has the files. A record is written when everything it names is there, whole files replace what
was there before, and what an image no longer needs is left for `podman-hpc rmsqi`: who reads meanwhile sees the store
as it was or as it is.
"""

from __future__ import annotations

import errno
import fcntl
import filecmp
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from hpcbinder.convert.files import make_folder, new_file, sync_folder
from hpcbinder.errors import ConvertError

IMAGES = "overlay-images"
LAYERS = "overlay-layers"
_LISTS = {IMAGES: "images", LAYERS: "layers"}
_LIMIT = 64 << 20
"""Bytes of the longest list that is read: of some ten thousand images."""
_ID = re.compile(r"[0-9a-f]{64}")
_LINK = re.compile(r"[A-Z0-9]{26}")


def make_store(folder: Path) -> None:
    """A store without images, or one that is there already as it is.

    Raises:
        OSError: It cannot be written.
    """
    for path in (folder, folder / "overlay", folder / "overlay" / "l", folder / IMAGES, folder / LAYERS):
        make_folder(path)
    for part, name in _LISTS.items():
        for file, text in ((f"{name}.lock", b""), (f"{name}.json", b"[]")):
            if not (path := folder / part / file).exists():
                try:
                    with new_file(path, 0o644) as out:
                        out.write(text)
                except FileExistsError:
                    continue  # by another process, a moment ago


def is_store(folder: Path) -> bool:
    """Whether a folder is such a store."""
    return all((folder / part / f"{name}.json").is_file() for part, name in _LISTS.items())


def write_records(store: Path, part: str, records: list[dict[str, Any]]) -> None:
    """Replace the list of `part` (`IMAGES` or `LAYERS`).

    Raises:
        OSError: It cannot be written.
    """
    folder = store / part
    unfinished = _new_name(folder / f"{_LISTS[part]}.json")
    try:
        with new_file(unfinished, 0o644) as out:
            out.write(json.dumps(records).encode("ascii"))
        unfinished.replace(folder / f"{_LISTS[part]}.json")
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(folder)


def join_store(made: Path, store: Path) -> None:
    """Move what one store has into another, which gets made if it is not there; names go with the newer image.

    Args:
        made: A store that nobody else uses; what is left of it is for the caller to remove.
        store: Several processes may do this to it at once, and others read it.

    Raises:
        ConvertError: `store` is damaged.
        OSError: It cannot be written.
    """
    make_store(store)
    with _alone(store):
        layers, images = _records(store, LAYERS), _records(store, IMAGES)
        for layer in _records(made, LAYERS):
            _move_layer(made, store, layer["id"])
            layers = [*(other for other in layers if other["id"] != layer["id"]), layer]
        write_records(store, LAYERS, layers)
        for image in _records(made, IMAGES):
            _move(made / IMAGES / image["id"], store / IMAGES / image["id"])
            old = next((other for other in images if other["id"] == image["id"]), {})
            image["names"] = list(dict.fromkeys([*image["names"], *(old.get("names") or [])]))
            names = set(image["names"])
            images = [
                {**other, "names": [name for name in other.get("names") or [] if name not in names]}
                for other in images
                if other["id"] != image["id"]
            ]
            images.append(image)
        write_records(store, IMAGES, images)


def _records(store: Path, part: str) -> list[dict[str, Any]]:
    path = store / part / f"{_LISTS[part]}.json"
    with path.open("rb") as file:
        raw = file.read(_LIMIT + 1)
    try:
        records = json.loads(raw) if len(raw) <= _LIMIT else None
    except (ValueError, RecursionError):
        records = None
    # A list that nothing has been put on is `null` in Go.
    records = [] if records is None and raw.strip() in (b"", b"null") else records
    if not isinstance(records, list) or not all(map(_is_record, records)):
        raise ConvertError("is no list of images' parts as podman keeps it", where=str(path))
    return records


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("id"), str) or not _ID.fullmatch(record["id"]):
        return False
    names = record.get("names") or []
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _move_layer(made: Path, store: Path, layer: str) -> None:
    link = (made / "overlay" / layer / "link").read_text()
    if not _LINK.fullmatch(link):
        raise ConvertError("is no link of a layer", where=str(made / "overlay" / layer / "link"))
    links = store / "overlay" / "l"
    # The squashfs first: without it the layer is an empty one.
    _move(made / "overlay" / "l" / f"{link}.squash", links / f"{link}.squash")
    _move(made / "overlay" / layer, store / "overlay" / layer)
    if not (links / link).is_symlink():
        (links / link).symlink_to(f"../{layer}/diff")
    sync_folder(links)
    sync_folder(store / "overlay")


def _move(source: Path, target: Path) -> None:
    """Move a file or folder whose name says what is in it: a folder that is there already is as good, and a file if it
    is the same one. (In a store that several people write to, anybody can give anything a name.)"""
    if target.is_dir() and not target.is_symlink() and source.is_dir():
        return
    if target.is_file() and not target.is_symlink() and source.is_file() and filecmp.cmp(source, target, shallow=False):
        return
    if target.is_symlink():
        target.unlink()
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        unfinished = _new_name(target)
        try:
            if source.is_dir():
                shutil.copytree(source, unfinished)
                unfinished.chmod(0o755)
            else:
                with source.open("rb") as file, new_file(unfinished, 0o644) as out:
                    shutil.copyfileobj(file, out, 1 << 20)
            unfinished.replace(target)
        finally:
            if unfinished.is_dir():
                shutil.rmtree(unfinished)
            else:
                unfinished.unlink(missing_ok=True)


def _new_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def _lock(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b")


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    """Be the only one who writes: with podman's own locks, in its order (fcntl's, on the whole file)."""
    with ExitStack() as files:
        locks = [files.enter_context(_lock(store / part / f"{_LISTS[part]}.lock")) for part in (LAYERS, IMAGES)]
        for lock in locks:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
        yield
        for lock in locks:  # who has the store in memory sees by these bytes that it must be read again
            lock.write(os.urandom(64))

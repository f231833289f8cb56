"""Image archives that are made once and kept, each in a folder named by what it is made of."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcbinder.catalog import sync_folder
from hpcbinder.errors import BuildError, ConvertError
from hpcbinder.image import DockerArchive, write_docker_archive
from hpcbinder.model import ImageConfig
from hpcbinder.progress import Reporter

ARCHIVE = "image.tar"

Parts = tuple[Mapping[str, Any], Sequence[tuple[str, Path]]]
"""An image's configuration, and its layers as (DiffID, uncompressed tar)."""


@dataclass(frozen=True)
class BaseImage:
    """An image on disk.

    Attributes:
        archive: docker-archive, what `docker load` takes.
        config: Its configuration; `config.digest` names these very bytes.
        tag: Name it has once loaded.
    """

    archive: Path
    config: ImageConfig
    tag: str


def ensure_kept(
    key: str,
    tag: str,
    *,
    what: str,
    folder: Path,
    shared: Sequence[Path],
    reporter: Reporter,
    make: Callable[[Path], Parts],
) -> BaseImage:
    """The archive of a key, made if it is not there yet.

    Two processes that want the same one do the work once; one that is killed leaves nothing that counts.

    Args:
        key: Name of its folder.
        tag: Name the image gets.
        what: `the base debian:bookworm`, for messages.
        folder: Where such archives are kept.
        shared: Read-only folders of other stores to look in first.
        make: Makes it, with a scratch folder on the same file system.

    Raises:
        BuildError: It cannot be made or kept here.
    """
    try:
        if (found := find_kept(key, tag, (*shared, folder))) is not None:
            return found
        folder.mkdir(parents=True, exist_ok=True)
        return _ensure_locked(key, tag, what, folder, reporter, make)
    except OSError as error:
        raise BuildError(f"{what} cannot be kept: {error.strerror}", where=error.filename or str(folder)) from error
    except NotImplementedError as error:  # what filelock says of a file system without flock(2)
        raise BuildError(f"{what} cannot be kept on a file system without locks", where=str(folder)) from error


def find_kept(key: str, tag: str, places: Sequence[Path]) -> BaseImage | None:
    """The archive of a key in the first of some folders that has it; None if none does.

    Args:
        tag: Name the image gets.
    """
    return next((found for place in places if (found := _load(place / key, tag)) is not None), None)


def is_kept(key: str, places: Sequence[Path]) -> bool:
    """Whether one of the folders has the archive of a key."""
    for place in places:
        try:
            if (place / key / ARCHIVE).is_file():
                return True
        except OSError:
            continue
    return False


def _ensure_locked(
    key: str, tag: str, what: str, folder: Path, reporter: Reporter, make: Callable[[Path], Parts]
) -> BaseImage:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / f".{key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        reporter.phase("build", f"waiting for {what}, which another process makes")
        lock.acquire()
    try:
        found = _load(folder / key, tag)
        if found is None:
            for left in folder.glob(f".{key}-*"):  # of a killed process: we hold the lock
                shutil.rmtree(left, ignore_errors=True)
            _make(key, tag, folder, make)
            found = _load(folder / key, tag)
            assert found is not None
        return found
    finally:
        lock.release()


def _make(key: str, tag: str, folder: Path, make: Callable[[Path], Parts]) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{key}-", dir=folder, ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        config, layers = make(scratch)
        done = scratch / "done"
        done.mkdir()
        done.chmod(0o755)  # others may build on a site's bases, whatever the umask of who made them
        with (done / ARCHIVE).open("wb") as archive:
            write_docker_archive(archive, config, layers, tag)
            archive.flush()
            os.fchmod(archive.fileno(), 0o644)
            os.fsync(archive.fileno())
        shutil.rmtree(folder / key, ignore_errors=True)  # only ever there if it could not be read
        done.replace(folder / key)
        sync_folder(folder)


def _load(folder: Path, tag: str) -> BaseImage | None:
    """The image kept in a folder; None if there is none, or none that can be used."""
    archive = folder / ARCHIVE
    try:
        if not archive.is_file():
            return None
        return BaseImage(archive, DockerArchive(archive).config, tag)
    except (ConvertError, OSError):
        return None

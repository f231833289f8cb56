"""A base that is there when asked for: found in the cache, or bootstrapped once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.bases import recipe
from hpcbinder.bases.mmdebstrap import Mmdebstrap
from hpcbinder.bases.rootfs import tidy
from hpcbinder.config import SiteConfig
from hpcbinder.debian import sources_list
from hpcbinder.errors import BuildError, ConvertError
from hpcbinder.image import DockerArchive, write_docker_archive
from hpcbinder.model import BaseRef, ImageConfig
from hpcbinder.progress import Reporter

_ARCHIVE = "image.tar"


@dataclass(frozen=True)
class BaseImage:
    """A base on disk.

    Attributes:
        archive: docker-archive, what `docker load` takes.
        config: Its configuration; `config.digest` names these very bytes.
        tag: Name it has once loaded.
    """

    archive: Path
    config: ImageConfig
    tag: str


def ensure_base(
    ref: BaseRef, *, folder: Path, site: SiteConfig, reporter: Reporter, shared: Sequence[Path] = ()
) -> BaseImage:
    """The base of a plan, bootstrapped from Debian's packages if it is not there yet.

    Two processes that want the same one do the work once; one that is killed leaves nothing that counts. A base stays
    as it is until its folder (`folder/KEY`) is removed: then the next build makes it anew, with newer packages.

    Args:
        folder: Where bases are kept.
        site: Mirrors, proxies and certificates for the downloads; nothing of them stays in the base.
        shared: Read-only folders of other stores to look in first.

    Raises:
        BuildError: It cannot be made here, with what to do about it.
    """
    key = recipe.base_key(ref)
    try:
        for place in (*shared, folder):
            if (found := _load(place / key, ref)) is not None:
                return found
        folder.mkdir(parents=True, exist_ok=True)
        return _ensure_locked(ref, key, folder, site, reporter)
    except OSError as error:
        raise BuildError(f"the base cannot be kept: {error.strerror}", where=error.filename or str(folder)) from error
    except NotImplementedError as error:  # what filelock says of a file system without flock(2)
        raise BuildError("the base cannot be kept on a file system without locks", where=str(folder)) from error


def _ensure_locked(ref: BaseRef, key: str, folder: Path, site: SiteConfig, reporter: Reporter) -> BaseImage:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / f".{key}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        reporter.phase("build", f"waiting for the base {ref.name}, which another process makes")
        lock.acquire()
    try:
        found = _load(folder / key, ref)
        if found is None:
            for left in folder.glob(f".{key}-*"):  # of a killed process: we hold the lock
                shutil.rmtree(left, ignore_errors=True)
            reporter.phase("build", f"base {ref.name}: bootstrapping from Debian's packages (once)")
            _make(ref, key, folder, site, reporter)
            found = _load(folder / key, ref)
            assert found is not None
        return found
    finally:
        lock.release()


def _make(ref: BaseRef, key: str, folder: Path, site: SiteConfig, reporter: Reporter) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{key}-", dir=folder, ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        layer_path = scratch / "layer.tar"
        with layer_path.open("wb") as out:
            layer = Mmdebstrap().bootstrap(
                ref.suite,
                architecture=recipe.ARCHITECTURES[ref.architecture],
                packages=recipe.PACKAGES,
                sources=sources_list(ref.suite, site.apt_mirror, site.apt_security_mirror),
                slim=recipe.SLIM,
                site=site,
                epoch=recipe.EPOCH,
                take=lambda tar: tidy(
                    tar, out, folders=recipe.FOLDERS, files=recipe.files(ref.suite), newest=recipe.EPOCH
                ),
                log=lambda line: reporter.log("build", line),
            )
        if layer.python != ref.python:
            raise BuildError(f"Debian {ref.suite} came with Python {layer.python or '(none)'}, not {ref.python}")
        done = scratch / "done"
        done.mkdir()
        done.chmod(0o755)  # others may build on a site's bases, whatever the umask of who made them
        with (done / _ARCHIVE).open("wb") as archive:
            write_docker_archive(archive, recipe.config(ref), [(layer.diff_id, layer_path)], recipe.base_tag(ref))
            archive.flush()
            os.fchmod(archive.fileno(), 0o644)
            os.fsync(archive.fileno())
        shutil.rmtree(folder / key, ignore_errors=True)  # only ever there if it could not be read
        done.replace(folder / key)
        _sync(folder)


def _load(folder: Path, ref: BaseRef) -> BaseImage | None:
    """The base kept in a folder; None if there is none, or none that can be used."""
    archive = folder / _ARCHIVE
    try:
        if not archive.is_file():
            return None
        return BaseImage(archive, DockerArchive(archive).config, recipe.base_tag(ref))
    except (ConvertError, OSError):
        return None


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

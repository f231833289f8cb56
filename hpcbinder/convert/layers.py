"""The cache of squashed layers: each layer is compressed once, for every image it is in.

A file is there whole or not at all: it is made in a scratch folder, checked, and renamed into place. Locks only keep
two processes from doing the same work; without them nothing would break. Whether a kept layer is wanted is known from
its name alone, so what exists is never asked from the image again.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hpcbinder.catalog import mark_used, move_file, vouched
from hpcbinder.convert.files import make_folder, sync_folder
from hpcbinder.errors import ConvertError
from hpcbinder.image import OciImage, check_digest
from hpcbinder.progress import Reporter
from hpcbinder.squashfs import Options, write_layer

_FORM = "5"
"""Part of every name: count it up when the bytes that a layer becomes change."""


class LayerCache:
    """Squashed layers in a folder.

    Args:
        folder: Shared by all who may use the layers; made if it is not there.
        options: How layers are squashed; part of every file's name.
        jobs: Threads that compress, None for one per usable core.
        below: Folders of the same kind in the stores of sites, only to be read (`catalog.vouched`).

    Attributes:
        squashed: How many layers this one has squashed, rather than found or waited for.
    """

    def __init__(self, folder: Path, options: Options, jobs: int | None = None, *, below: Sequence[Path] = ()) -> None:
        self._folder = folder
        self._below = tuple(below)
        self._options = options
        self._jobs = jobs
        self.squashed = 0
        self._parameters = f"{options.key}-v{_FORM}"

    def path(self, diff_id: str) -> Path:
        """Where a layer is, once it has been squashed."""
        return self._folder / f"{check_digest(diff_id).removeprefix('sha256:')}-{self._parameters}.squashfs"

    def made(self, identity: str) -> Path:
        """Where a layer that is of no image's tar is, once it has been made."""
        return self._folder / f"{check_digest(identity).removeprefix('sha256:')}-{self._parameters}-made.squashfs"

    def _find(self, path: Path) -> Path | None:
        """A layer's file, here or below, if there is one."""
        if path.exists():
            return path
        places = ((folder / path.name, folder.parent) for folder in self._below)
        return next((place for place, store in places if vouched(place, store)), None)

    def ensure(self, image: OciImage, scratch: Path, reporter: Reporter) -> list[Path]:
        """Have all layers of an image squashed.

        Args:
            scratch: Folder for unfinished files, on the cache's file system.

        Returns:
            Their files, from the lowest to the topmost layer; one that the image has twice is there twice.

        Raises:
            ConvertError: The image does not hold a layer, or holds under its name something else.
            OSError: A file cannot be read or written.
        """
        diff_ids = image.config.diff_ids
        make_folder(self._folder)
        with ExitStack() as locks:
            missing = self.missing(diff_ids)
            # One order for all processes, so that none waits for another in a circle.
            for diff_id in sorted(missing):
                locks.enter_context(self._lock(self.path(diff_id), reporter))
            missing = self.missing(missing)
            self.squashed += len(missing)
            if missing:
                self._squash(image, missing, len(set(diff_ids)), scratch, reporter)
        return [self._use(self.path(diff_id)) for diff_id in diff_ids]

    def ensure_made(
        self,
        identity: str,
        make: Callable[[Path], None],
        scratch: Path,
        reporter: Reporter,
        *,
        shared: bool = True,
    ) -> Path:
        """Have a layer that is of no image's tar.

        Args:
            identity: `sha256:…` of what it is made of.
            make: Writes it; the same bytes for the same identity.
            scratch: Folder for unfinished files, on the cache's file system.
            shared: It may be taken from the folders below. What scripts of a repository or a package made is not: it
                stays with whoever ran them.

        Returns:
            Its file.

        Raises:
            ConvertError, OSError: It cannot be written.
        """
        path = self.made(identity)
        make_folder(self._folder)
        if not path.exists() and (not shared or self._find(path) is None):
            with self._lock(path, reporter):
                if not path.exists():
                    unfinished = scratch / path.name
                    make(unfinished)
                    _publish(unfinished, path)
                    self.squashed += 1
        return self._use(path)

    def keep(self, unfinished: Path, diff_id: str) -> Path:
        """Take over a layer that was squashed by the same options.

        Args:
            unfinished: Its file, on the cache's file system; gone afterwards.
            diff_id: What squashing it said.

        Returns:
            Its file.

        Raises:
            OSError: It cannot be kept.
        """
        make_folder(self._folder)
        path = self.path(diff_id)
        if self._find(path) is None:
            _publish(unfinished, path)
        else:
            unfinished.unlink()
        return self._use(path)

    def _use(self, path: Path) -> Path:
        """A layer that is there, known to be of use now: the rest goes in time (`hpcbinder.gc`)."""
        found = self._find(path) or path
        mark_used(found)
        return found

    def has_made(self, identity: str) -> bool:
        """Whether a layer that is of no image's tar has been made."""
        return self._find(self.made(identity)) is not None

    def missing(self, diff_ids: Sequence[str]) -> list[str]:
        """Which of some layers have not been squashed yet, each once."""
        return [diff_id for diff_id in dict.fromkeys(diff_ids) if self._find(self.path(diff_id)) is None]

    def _squash(self, image: OciImage, missing: list[str], total: int, scratch: Path, reporter: Reporter) -> None:
        waiting = set(missing)
        for diff_id, stream in image.layers(missing):
            if diff_id not in waiting:
                raise ConvertError(f"the image handed out layer {diff_id}, which was not asked for")
            number = total - len(waiting) + 1
            reporter.phase("convert", f"compressing layer {number} of {total}", (number - 1) / total)
            unfinished = scratch / self.path(diff_id).name
            actual = write_layer(stream, unfinished, self._options, jobs=self._jobs)
            if actual != diff_id:
                unfinished.unlink()
                raise ConvertError(
                    f"layer {diff_id} of the image has the content of {actual}",
                    hint="the engine's storage is damaged; remove the image there and build it again",
                )
            _publish(unfinished, self.path(diff_id))
            waiting.remove(diff_id)
        if waiting:
            raise ConvertError(f"the image does not hold its layer {min(waiting)}")

    @contextmanager
    def _lock(self, layer: Path, reporter: Reporter) -> Iterator[None]:
        """Be the only one who squashes a layer. The lock goes with the process, however that ends."""
        path = layer.with_suffix(".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                reporter.phase("convert", "another process is compressing the same layer; waiting for it")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise  # a file system without locks costs work done twice, no more
            yield
            if layer.exists():
                path.unlink(missing_ok=True)  # who still waits on it finds the layer there
        finally:
            os.close(descriptor)


def _publish(unfinished: Path, path: Path) -> None:
    unfinished.chmod(0o644)
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    move_file(unfinished, path)
    sync_folder(path.parent)

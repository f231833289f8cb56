"""Putting finished files where a person wants them: whole or not at all, and never over what is there unasked."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.catalog import make_folder, remove_tree, sync_folder
from hpcbinder.convert import archive_oci, is_store, join_store
from hpcbinder.errors import ConvertError, UsageError
from hpcbinder.text import one_line

ENDINGS = {
    "sif": ".sif",
    "squashfs": ".squashfs",
    "charliecloud": ".sqfs",
    "enroot": ".sqsh",
    "podman-hpc": ".podman-hpc",
    "oci": ".oci",
}
"""Format -> what its file's or folder's name ends in."""
_FOLDERS = ("shifter", "podman-hpc", "oci")
_SHARED = "shifter"
"""A folder of many images, each with files named by its digest: new ones go into one that is there."""
_UNFINISHED = ".hpcbinder-"
_NAME = re.compile(re.escape(_UNFINISHED) + r"[0-9a-f]{16}")
_MARK = ".unfinished"
"""Link in a folder of unfinished results that says the folder's name: what has another name has been given it."""


@dataclass(frozen=True)
class Target:
    """Where the results go.

    Attributes:
        folder: The folder they are put in, absolute.
        file: The name that the only result gets; None for the names they have.
        expected: Names in `folder` that they will have, as far as that is known beforehand.
        store: `folder` is an image store of podman's, which gets the image besides those it has.
    """

    folder: Path
    file: str | None
    expected: tuple[str, ...]
    store: bool = False

    @classmethod
    def of(cls, output: str | None, name: str, formats: Sequence[str]) -> Target:
        """What a person means.

        Args:
            output: A file if there is one format of one file (`oci` is one in a name that ends in `.tar`), and `output`
                is no folder and ends in no slash; else a folder, made if it is not there. A store of podman-hpc's gets
                the image put into it, if there is no other format. None is the working directory.
            name: Of the files.
        """
        path = Path(output or "").absolute()
        if tuple(formats) == ("podman-hpc",) and is_store(path):
            return cls(path, None, (), store=True)
        packed = tuple(formats) == ("oci",) and path.suffix == ".tar"
        one_file = packed or len(formats) == 1 and formats[0] not in _FOLDERS
        if one_file and output and not output.endswith("/") and not path.is_dir():
            return cls(path.parent, path.name, (path.name,))
        return cls(path, None, tuple(f"{name}{ENDINGS[form]}" for form in formats if form in ENDINGS))

    def check(self, *, force: bool) -> None:
        """Make sure, before the work is begun, that the results can be put there.

        Raises:
            UsageError: Something is there already, or the folder cannot be one.
            ConvertError: It cannot be written to.
        """
        if self.file is not None and not self.folder.is_dir():
            raise UsageError("there is no such folder", where=one_line(str(self.folder)))
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError("is no folder, and there are several files to write", where=one_line(str(self.folder)))
        for name in self.expected:
            self._check(self.folder / name, force=force)
        there = next(place for place in (self.folder, *self.folder.parents) if place.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            raise ConvertError("you may not write there", where=one_line(str(there)))

    def put(self, work: Path, formats: Mapping[str, Path], *, force: bool) -> dict[str, Path]:
        """Move the results from `work` to where they belong.

        Args:
            work: Folder on the same file system that holds them and nothing else.
            formats: Format -> its file or folder in `work`.

        Returns:
            Format -> where it is now.

        Raises:
            UsageError: Something has come to be there meanwhile.
            ConvertError: They cannot be moved.
        """
        try:
            if self.store:
                join_store(formats["podman-hpc"], self.folder)
                return {"podman-hpc": self.folder}
            if self.file is not None and "oci" in formats:
                formats = {"oci": _packed(formats["oci"])}
        except OSError as error:
            raise _unwritable(error, self.folder) from error
        moves: list[tuple[Path, Path]] = []
        for made in sorted(work.iterdir()):
            if made.name == _SHARED and made.is_dir():
                moves += [(file, self.folder / _SHARED / file.name) for file in sorted(made.iterdir())]
            else:
                moves.append((made, self.folder / (self.file or made.name)))
        for source, target in moves:
            same = target.parent != self.folder and target.is_file()  # a digest's file, and so the same image
            self._check(target, force=force or (same and source.stat().st_size == target.stat().st_size))
        try:
            for source, target in moves:
                make_folder(target.parent)
                _replace(source, target, work)
                sync_folder(target.parent)
        except OSError as error:
            raise _unwritable(error, self.folder) from error
        places = dict(moves)
        return {form: places[path] for form, path in formats.items()}

    def _check(self, target: Path, *, force: bool) -> None:
        if not os.path.lexists(target):
            return
        where = one_line(str(target))
        if not force:
            raise UsageError("is there already", where=where, hint="--force replaces it")
        if self.file is not None and target.is_dir():
            raise UsageError("is a folder", where=where)
        if target.exists() and not (target.is_file() or target.is_dir()):
            raise UsageError("is no ordinary file", where=where)


def _packed(layout: Path) -> Path:
    path = layout.with_suffix(".tar")
    archive_oci(layout, path)
    remove_tree(layout)
    return path


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A new folder in `folder` for results in the making, removed at the end.

    It is locked as long as its process lives, so that what a killed one left is removed by the next. `folder` is made
    if it is not there, and goes too if nothing has come into it.

    Raises:
        ConvertError: It cannot be made.
    """
    made = not folder.exists()
    try:
        make_folder(folder)
    except OSError as error:
        raise _unwritable(error, folder) from error
    try:
        with _work(folder) as path:
            yield path
    finally:
        if made:
            try:
                folder.rmdir()
            except OSError:
                pass  # it holds the results


@contextmanager
def _work(folder: Path) -> Iterator[Path]:
    for left in folder.glob(f"{_UNFINISHED}*"):
        _remove_dead(left)
    try:
        path, descriptor = _locked(folder)
    except OSError as error:
        raise _unwritable(error, folder) from error
    results = path / "results"
    try:
        results.mkdir()
        yield results
    finally:
        remove_tree(results)  # and then the mark, without which nobody would take it for ours
        remove_tree(path)
        os.close(descriptor)


def _locked(folder: Path) -> tuple[Path, int]:
    while True:
        path = folder / f"{_UNFINISHED}{secrets.token_hex(8)}"
        path.mkdir(mode=0o700)
        # Until it is locked, another process may take it for one that a killed process left.
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        except OSError:
            pass  # a file system without such locks: then nothing tells the dead from the living, and both stay
        if path.exists():
            (path / _MARK).symlink_to(path.name)
            return path, descriptor
        os.close(descriptor)


def _remove_dead(path: Path) -> None:
    """Remove what a killed process left, if it is that: in a folder of many people anything can get any name."""
    if not _NAME.fullmatch(path.name):
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        # By the open folder, not by its name: that may stand for another one a moment later.
        inside = Path(f"/proc/self/fd/{descriptor}")
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (inside / _MARK).is_symlink() and str((inside / _MARK).readlink()) == path.name:
                for entry in inside.iterdir():
                    if entry.name != _MARK:
                        remove_tree(entry)
                (inside / _MARK).unlink()
            path.rmdir()  # does nothing to what is not empty
    except OSError:
        pass  # somebody is at work in it, or it is none of ours
    finally:
        os.close(descriptor)


def _replace(source: Path, target: Path, work: Path) -> None:
    """Move a file or folder in place of what may be there."""
    if target.is_dir() and not target.is_symlink():
        target.rename(work / f"old-{secrets.token_hex(8)}")
    elif source.is_dir() and os.path.lexists(target):
        target.unlink()
    source.replace(target)


def _unwritable(error: OSError, folder: Path) -> ConvertError:
    where = error.filename if isinstance(error.filename, str) else str(folder)
    return ConvertError(f"cannot be written: {error.strerror or error}", where=one_line(where))

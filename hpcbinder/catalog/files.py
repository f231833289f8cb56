"""Files that are there whole or not at all, folders that go away whatever is in them."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcbinder.errors import CatalogError
from hpcbinder.text import one_line

_DAY = 24 * 3600.0
"""Seconds; file systems that many machines share are spared a write at every use."""


@contextmanager
def writing(store: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write below `store` into one clear line.

    Raises:
        CatalogError: Instead of an OSError of the body.
    """
    try:
        yield
    except OSError as error:
        where = one_line(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else str(store)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = "the quota is used up" if error.errno == errno.EDQUOT else "the file system is full"
            raise CatalogError(what, where=where, hint="free some space, or set store.path to another place") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise CatalogError(
                f"cannot write to the store: {error.strerror}", where=where, hint="set store.path to a folder of yours"
            ) from error
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise CatalogError(
                f"the store's file system has no file locks: {error.strerror}",
                where=where,
                hint="set store.path to another file system, or have this one mounted with flock",
            ) from error
        raise CatalogError(f"cannot use the store: {error.strerror or error}", where=where) from error


def make_folder(path: Path) -> None:
    """Make a folder that others may read, whatever the umask; its parents are left as the umask has them."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    path.chmod(0o755)


def mark_used(path: Path) -> None:
    """Have a file's time say that it is of use now, to the day; of a file of others it says what it said."""
    try:
        if time.time() - path.stat().st_mtime > _DAY:
            os.utime(path)
    except OSError:
        return


def sync_folder(path: Path) -> None:
    """Make renames in `path` outlive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems cannot sync a folder; the rename is atomic all the same
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes) -> None:
    """Replace the file `path`, readable by all, so that a reader sees the old or the new content whole."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def move_file(source: Path, target: Path) -> None:
    """Put a finished file in its place, so that nobody sees a part of it, wherever it was made.

    Raises:
        OSError: It cannot be put there.
    """
    try:
        source.replace(target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    # Made on another disk: a node's own.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with source.open("rb") as file, temporary.open("xb") as out:
            shutil.copyfileobj(file, out, 1 << 20)
            out.flush()
            os.fchmod(out.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode))
            os.fsync(out.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    source.unlink()


def publish(folder: Path) -> None:
    """Let everybody read a finished folder (0755, files 0644 or 0755), and bring it to disk."""
    folder.chmod(0o755)
    for parent, folders, files in os.walk(folder):
        for name in folders:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o755)
        for name in files:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode):
                continue
            path.chmod(0o755 if mode & stat.S_IXUSR else 0o644)
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(parent))


def remove_tree(path: Path) -> None:
    """Remove a file or folder of ours, however deep or closed it is; links are not followed.

    `shutil.rmtree` recurses (and fails at a few hundred levels) and paths end at 4096 bytes, so folders further down
    are first moved up to the top. What cannot be removed (a file still open on NFS) stays for the next clean-up.
    """
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
    except FileNotFoundError:
        return
    prefix, count = f".{secrets.token_hex(8)}-", 0
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        try:
            folder.chmod(0o700)
            with os.scandir(folder) as entries:
                children = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError:
            continue
        for child, is_folder in children:
            try:
                if not is_folder:
                    os.unlink(child)  # noqa: PTH108 (no Path for each of many thousand files)
                elif folder == path:
                    waiting.append(Path(child))
                else:
                    os.chmod(child, 0o700)  # noqa: PTH101 (a folder's parent entry changes with a move)
                    count += 1
                    moved = path / f"{prefix}{count}"
                    os.rename(child, moved)  # noqa: PTH104
                    waiting.append(moved)
            except OSError:
                continue
        if folder != path:
            _rmdir(folder)
    _rmdir(path)


def _rmdir(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        pass

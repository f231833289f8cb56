"""Files out of an image, as an ordinary user can have them.

Nothing is ever written outside the destination, whatever the image or another process does: everything is made inside
a new folder that only we may enter, each name relative to an open folder and without following a link, and appears
under its own name when it is whole.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.errors import ConvertError, UsageError
from hpcbinder.squashfs import Image, Node
from hpcbinder.text import one_line

_SET_ID = 0o6000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Extracted:
    """What came out.

    Attributes:
        target: Where it is.
        count: Names that were made.
        skipped: Why something was left out or is not as it was, one line each.
    """

    target: Path
    count: int
    skipped: tuple[str, ...]


def extract(
    image: Image, path: str, destination: Path, progress: Callable[[float], None], *, set_id: bool = False
) -> Extracted:
    """Copy a file or a folder out of an image.

    Modes, times, hard links, holes and `user.*` attributes are kept; owners and devices only by root, since nobody else
    can make them.

    Args:
        image: Where to take it from.
        path: What to take; links on the way to it are followed inside the image, it itself is not.
        destination: What it becomes; if a folder is there, it is put inside it under its own name. Nothing that is
            there is replaced.
        progress: Hears how much has been written, 0 to 1.
        set_id: Keep set-user-id and set-group-id bits.

    Raises:
        UsageError: Nothing is at `path`, or something is at the destination.
        ConvertError: The image is damaged, or the destination cannot be written; nothing is left there.
    """
    found = image.locate(path, last=False)
    if found is None:
        raise UsageError(f"nothing at {path!r} in the image")
    target = destination
    if destination.is_dir():
        name = found.rpartition("/")[2]
        if not name:
            raise UsageError("the image's root needs a new name to be put at", where=str(destination))
        target = destination / name
    if os.path.lexists(target):
        raise UsageError("is there already", where=str(target), hint="remove it, or name another place")
    scratch = target.parent / f".hpcbinder-{secrets.token_hex(8)}.tmp"
    try:
        scratch.mkdir(mode=0o700)
        try:
            return _extract(image, found, scratch, target, progress, set_id)
        finally:
            _remove(scratch)
    except OSError as error:
        where = one_line(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else None
        raise ConvertError(f"cannot be written: {error.strerror or error}", where=where or str(target)) from error


def _extract(
    image: Image, path: str, scratch: Path, target: Path, progress: Callable[[float], None], set_id: bool
) -> Extracted:
    nodes = list(image.walk(path))
    total = sum(node.size for _, node in nodes) + len(nodes)
    top = os.open(scratch, _FOLDER)
    try:
        with _Writer(image, top, set_id) as writer:
            done = 0
            for below, node in nodes:
                writer.add(os.fsencode(below), node)
                done += node.size + 1
                progress(done / total)
            writer.come_back()
            # A folder that may not be written cannot be moved: its mode comes when it is in its place.
            os.rename(_NAME, target, src_dir_fd=top)
            writer.finish()
        return Extracted(target, len(nodes), tuple(writer.skipped))
    finally:
        os.close(top)


_NAME, _LINKS = "it", "links"


class _Writer:
    """Makes a tree, name after name, a folder before its content.

    Only one folder is open, besides the scratch folder: `..` leads back, which nobody else can move.

    Args:
        top: Descriptor of the scratch folder.
    """

    def __init__(self, image: Image, top: int, set_id: bool) -> None:
        self._image = image
        self._top = top
        self._mask = 0o7777 if set_id else 0o7777 & ~_SET_ID
        self._root = os.geteuid() == 0
        self._folders: list[tuple[bytes, Node]] = []
        self._here = -1
        self._linked: set[int] = set()
        os.mkdir(_LINKS, 0o700, dir_fd=top)
        self._links = os.open(_LINKS, _FOLDER, dir_fd=top)
        self.skipped: list[str] = []

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._links)
        if self._here >= 0:
            os.close(self._here)

    def add(self, path: bytes, node: Node) -> None:
        """Make one name.

        Args:
            path: From what is extracted, which itself is "".
        """
        parent, _, name = path.rpartition(b"/")
        while self._folders and path and self._folders[-1][0] != parent:
            self._leave()
        where = self._top if not path else self._here
        if node.kind == "directory":
            self._enter(path, name or os.fsencode(_NAME), node, where)
        else:
            self._make(path, name or os.fsencode(_NAME), node, where)

    def _enter(self, path: bytes, name: bytes, node: Node, where: int) -> None:
        os.mkdir(name, 0o700, dir_fd=where)
        inside = os.open(name, _FOLDER, dir_fd=where)
        if self._here >= 0:
            os.close(self._here)
        self._here = inside
        self._folders.append((path, node))

    def _leave(self) -> None:
        _, node = self._folders.pop()
        above = os.open("..", _FOLDER, dir_fd=self._here)
        try:
            self.describe(self._here, node)
        finally:
            os.close(self._here)
            self._here = above

    def come_back(self) -> None:
        """Finish all folders but the one that is extracted, if it is one."""
        while len(self._folders) > 1:
            self._leave()

    def finish(self) -> None:
        """Give the folder that is extracted its mode."""
        for _, node in self._folders:
            self.describe(self._here, node)

    def _make(self, path: bytes, name: bytes, node: Node, where: int) -> None:
        number = str(node.number)
        if node.number in self._linked:
            os.link(number, name, src_dir_fd=self._links, dst_dir_fd=where, follow_symlinks=False)
            return
        if node.kind == "file":
            self._file(name, node, where)
        elif node.kind == "symlink":
            assert node.target is not None
            os.symlink(os.fsencode(node.target), name, dir_fd=where)
            self._own(name, node, where)
            self._date(name, node, where)
        elif not self._special(path, name, node, where):
            return
        if node.nlink > 1:
            try:
                os.link(name, number, src_dir_fd=where, dst_dir_fd=self._links, follow_symlinks=False)
                self._linked.add(node.number)
            except OSError:
                pass  # a file system without hard links: each name gets a copy

    def _file(self, name: bytes, node: Node, where: int) -> None:
        file = os.open(name, _FILE, 0o600, dir_fd=where)
        try:
            os.ftruncate(file, node.size)
            position = 0
            for piece in self._image.pieces(node):
                if isinstance(piece, int):
                    position += piece
                    continue
                view = memoryview(piece)
                while view:
                    count = os.pwrite(file, view, position)
                    position += count
                    view = view[count:]
            self.describe(file, node)
        finally:
            os.close(file)

    def _special(self, path: bytes, name: bytes, node: Node, where: int) -> bool:
        kinds = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "block": stat.S_IFBLK, "character": stat.S_IFCHR}
        device = os.makedev(*node.device) if node.device else 0
        if node.device and not self._root:
            self._skip(path, "a device, which only root can make")
            return False
        try:
            os.mknod(name, kinds[node.kind] | 0o600, device, dir_fd=where)
        except OSError as error:
            self._skip(path, f"a {node.kind} that cannot be made here: {error.strerror}")
            return False
        self._own(name, node, where)
        os.chmod(name, node.mode & self._mask, dir_fd=where)  # ours, and no link
        self._date(name, node, where)
        return True

    def describe(self, file: int, node: Node) -> None:
        """Give an open file or folder its attributes, owner, mode and times."""
        for key, value in node.xattrs:
            if key.startswith(b"user."):
                with suppress(OSError):  # a file system without them
                    os.setxattr(file, key, value)
        if self._root:
            self._chown(file, node, None)
        os.fchmod(file, node.mode & self._mask)
        os.utime(file, (node.mtime, node.mtime))

    def _own(self, name: bytes, node: Node, where: int) -> None:
        if self._root:
            self._chown(name, node, where)

    def _chown(self, what: int | bytes, node: Node, where: int | None) -> None:
        try:
            os.chown(what, node.uid, node.gid, dir_fd=where, follow_symlinks=where is None)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise
            # Root of a user namespace without that id, or of a file system that obeys another root.
            self._root = False
            self.skipped.append(f"owners are not kept: user {node.uid} and group {node.gid} cannot own files here")

    def _date(self, name: bytes, node: Node, where: int) -> None:
        os.utime(name, (node.mtime, node.mtime), dir_fd=where, follow_symlinks=False)

    def _skip(self, path: bytes, why: str) -> None:
        self.skipped.append(f"left out {os.fsdecode(path) or 'it'}: {why}")


def _remove(scratch: Path) -> None:
    """Remove a scratch folder with all that is in it, however deep and whatever the modes."""
    here = os.open(scratch, _FOLDER)
    # The folders left to be removed of each open one and those above it, of which the last is the one gone into.
    waiting = [_empty(here)]
    try:
        while waiting[-1] or len(waiting) > 1:
            if waiting[-1]:
                below = waiting[-1][-1]
                os.chmod(below, 0o700, dir_fd=here)
                there = os.open(below, _FOLDER, dir_fd=here)
                waiting.append(_empty(there))
            else:
                there = os.open("..", _FOLDER, dir_fd=here)
                waiting.pop()
                os.rmdir(waiting[-1].pop(), dir_fd=there)
            os.close(here)
            here = there
    finally:
        os.close(here)
    scratch.rmdir()


def _empty(folder: int) -> list[str]:
    """Remove all but folders from an open folder; gives these."""
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.name, dir_fd=folder)
    return [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]

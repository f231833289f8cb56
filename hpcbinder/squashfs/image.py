"""Look into an image without mounting it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import compressors, tree
from hpcbinder.squashfs.archive import Archive
from hpcbinder.squashfs.check import Checker
from hpcbinder.squashfs.compare import same_content
from hpcbinder.squashfs.tree import Directory, File, Inode, Special, Symlink

if TYPE_CHECKING:
    from typing_extensions import Buffer

_KINDS = ("", "directory", "file", "symlink", "block", "character", "fifo", "socket")
_MAX_LINKS = 40
"""Symbolic links followed for one path, as in Linux."""
_LISTINGS = 64
"""Directories whose names are kept at hand."""


@dataclass(frozen=True)
class Node:
    """What is known about one file.

    Attributes:
        kind: `file`, `directory`, `symlink`, `block`, `character`, `fifo` or `socket`.
        mode: Permission bits (12 of them).
        mtime: Unix time in seconds.
        size: Bytes of a file; 0 for the others.
        nlink: Names it has.
        target: Of a symbolic link.
        device: Major and minor number of a device.
        number: Inode number: the same for all names of one file.
        xattrs: Extended attributes, full names and values.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    nlink: int
    target: str | None = None
    device: tuple[int, int] | None = None
    number: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    _inode: Inode | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Info:
    """What an image says of itself.

    Attributes:
        compressor: Its name.
        options: Of the compressor, as they stand in the image; empty where the defaults hold.
        block_size: Bytes per data block.
        bytes_used: Bytes of the image without padding, of which `data` are files' content and the rest tables.
        created: Unix time (s).
        inodes: How many it says it has; `fragments`, `owners` and `xattrs` (sets of attributes) likewise.
        exportable: Whether inodes can be found by number (NFS).
    """

    compressor: str
    options: bytes
    block_size: int
    bytes_used: int
    data: int
    created: int
    inodes: int
    fragments: int
    owners: int
    xattrs: int
    exportable: bool


class Image:
    """A squashfs image open for reading; a context manager. Made by `Image.open`.

    Paths are `str` with undecodable bytes as surrogates (`os.fsdecode`), from the image's root, with a leading slash or
    without; `..` does not leave the image. Symbolic links are followed where a method says so. Every method raises
    ConvertError where the image is damaged.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._listings: dict[tuple[int, int], dict[bytes, int]] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, offset: int = 0) -> Image:
        """Open an image.

        Args:
            path: The file.
            offset: Bytes in front of the image (a SIF's header).

        Raises:
            ConvertError: There is no image we can read.
        """
        return cls(Archive(path, offset))

    def lookup(self, path: str, *, follow: bool = False) -> Node | None:
        """What is at `path`; None if nothing is.

        Args:
            path: Where to look.
            follow: Follow symbolic links, also in the middle, all inside the image.
        """
        inode = self._find(path, follow)
        return None if inode is None else _node(inode)

    def listdir(self, path: str, *, follow: bool = False) -> list[str]:
        """The names in a directory, sorted by their bytes.

        Raises:
            ConvertError: No directory is there.
        """
        inode = self._find(path, follow)
        if not isinstance(inode, Directory):
            raise ConvertError(f"no directory {path!r} in the image", where=self._archive.path)
        return [os.fsdecode(name) for name, _, _ in sorted(self._archive.listing(inode))]

    def readlink(self, path: str) -> str:
        """A symbolic link's target.

        Raises:
            ConvertError: No symbolic link is there.
        """
        inode = self._find(path, False)
        if not isinstance(inode, Symlink):
            raise ConvertError(f"no symbolic link {path!r} in the image", where=self._archive.path)
        return os.fsdecode(inode.target)

    def read(self, path: str, limit: int = 16 << 20, *, follow: bool = False) -> bytes:
        """A file's content.

        Args:
            path: The file.
            limit: Most bytes it may have.
            follow: Follow symbolic links.

        Raises:
            ConvertError: No file is there, or it is longer.
        """
        inode = self._file(path, follow)
        if inode.size > limit:
            raise ConvertError(f"{path!r} in the image has more than {limit} bytes", where=self._archive.path)
        return self._archive.content(inode)

    def open_file(self, path: str, *, follow: bool = False) -> io.BufferedReader:
        """A file as a readable stream, for what may be too big for `read`; not seekable.

        Raises:
            ConvertError: No file is there.
        """
        stream = _BlockStream(self._archive.blocks(self._file(path, follow)))
        return io.BufferedReader(stream, self._archive.superblock.block_size)

    def walk(self, path: str = "") -> Iterator[tuple[str, Node]]:
        """Every path below one (which itself is ""; no leading slashes) and what is there, a directory before its
        content, names sorted by their bytes. Reads the whole tree first; symbolic links are not followed.

        Raises:
            ConvertError: Nothing is at `path`.
        """
        top: Inode | None = self._archive.load()
        for name in filter(None, os.fsencode(path).split(b"/")):
            top = top.entries.get(name) if isinstance(top, Directory) else None
        if top is None:
            raise ConvertError(f"nothing at {path!r} in the image", where=self._archive.path)
        yield "", _node(top)
        if isinstance(top, Directory):
            for below, inode in tree.walk(top):
                yield os.fsdecode(below), _node(inode)

    def folders(self) -> Iterator[tuple[str, list[str], list[str]]]:
        """Every directory, the names of the directories in it and of all else in it, as `os.walk` has them: names that
        are taken out of the first list are not gone into. Much faster than `walk`, since files' inodes are not read.
        """
        for path, folders, others in self._archive.folders():
            inside = [os.fsdecode(name) for name in folders]
            yield os.fsdecode(path), inside, [os.fsdecode(name) for name in others]
            folders[:] = map(os.fsencode, inside)

    def locate(self, path: str, *, last: bool = True) -> str | None:
        """The path without symbolic links in the middle, and none at the end, that leads to the same; None if nothing
        is there.

        Args:
            path: Where to look.
            last: Follow the last name, too, if it is a symbolic link. One with a slash behind it always is.
        """
        found = self._follow(path, True, last)
        return None if found is None else os.fsdecode(b"/".join(found[0]))

    def pieces(self, node: Node) -> Iterator[bytes | int]:
        """A file's content in its order: the bytes of a block, or how many bytes are a hole.

        Args:
            node: A file of this image.
        """
        assert isinstance(node._inode, File)
        return self._archive.pieces(node._inode)

    def same_content(self, node: Node, other: Image, others: Node) -> bool:
        """Whether a file of this image and one of another have the same bytes."""
        assert isinstance(node._inode, File) and isinstance(others._inode, File)
        return same_content(self._archive, node._inode, other._archive, others._inode)

    def place(self, node: Node) -> tuple[int, ...]:
        """What files share of which only one copy is stored: equal for two files of one image means equal content.

        Args:
            node: A file of this image.
        """
        assert isinstance(node._inode, File)
        data = node._inode.data
        return (data.start, hash(bytes(data.words)), data.fragment, data.offset, node.size)

    def info(self) -> Info:
        """What the image says of itself."""
        archive = self._archive
        block = archive.superblock
        return Info(
            compressor=compressors.NAMES[block.compressor],
            options=archive.compressor_options,
            block_size=block.block_size,
            bytes_used=block.bytes_used,
            data=block.inode_table - archive.data_start,
            created=block.mkfs_time,
            inodes=block.inode_count,
            fragments=block.fragment_count,
            owners=block.id_count,
            xattrs=archive.xattrs.count if archive.xattrs else 0,
            exportable=bool(archive.exports()),
        )

    def check(self, progress: Callable[[float], None]) -> list[str]:
        """Read everything there is in the image.

        Args:
            progress: Hears how much has been read, 0 to 1.

        Returns:
            What is wrong, one line each; nothing if the image is whole.
        """
        return Checker(self._archive, progress).run()

    def _file(self, path: str, follow: bool) -> File:
        inode = self._find(path, follow)
        if not isinstance(inode, File):
            raise ConvertError(f"no file {path!r} in the image", where=self._archive.path)
        return inode

    def _find(self, path: str, follow: bool) -> Inode | None:
        found = self._follow(path, follow, True)
        return None if found is None else found[1]

    def _follow(self, path: str, follow: bool, last: bool) -> tuple[list[bytes], Inode] | None:
        """The names that lead to what is at `path`, and what it is."""
        root = self._archive.root()
        names: list[bytes] = []
        parents: list[Directory] = []
        here: Inode = root
        waiting = os.fsencode(path).split(b"/")[::-1]
        links = 0
        while waiting:
            name = waiting.pop()
            if name in (b"", b"."):
                continue
            if not isinstance(here, Directory):
                return None
            if name == b"..":
                here = parents.pop() if parents else root
                del names[-1:]
                continue
            below = self._entry(here, name)
            if below is None:
                return None
            if follow and isinstance(below, Symlink) and (last or waiting):
                links += 1
                if links > _MAX_LINKS:
                    return None
                if below.target.startswith(b"/"):
                    here, parents, names = root, [], []
                waiting += below.target.split(b"/")[::-1]
                continue
            parents.append(here)
            names.append(name)
            here = below
        return names, here

    def _entry(self, directory: Directory, name: bytes) -> Inode | None:
        listing = self._listings.get(directory.listing)
        if listing is None:
            if len(self._listings) >= _LISTINGS:
                self._listings.clear()
            listing = {name: reference for name, reference, _ in self._archive.listing(directory)}
            self._listings[directory.listing] = listing
        reference = listing.get(name)
        return None if reference is None else self._archive.inode(reference)[0]

    def close(self) -> None:
        """Let go of the file."""
        self._archive.close()

    def __enter__(self) -> Image:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _BlockStream(io.RawIOBase):
    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        view = memoryview(buffer)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _node(inode: Inode) -> Node:
    return Node(
        kind=_KINDS[inode.type],
        mode=inode.mode,
        uid=inode.uid,
        gid=inode.gid,
        mtime=inode.mtime,
        size=inode.size if isinstance(inode, File) else 0,
        nlink=inode.nlink,
        target=os.fsdecode(inode.target) if isinstance(inode, Symlink) else None,
        device=tree.device_parts(inode.device)
        if isinstance(inode, Special) and inode.type in (tree.BLOCK_DEVICE, tree.CHARACTER_DEVICE)
        else None,
        number=inode.number,
        xattrs=inode.xattrs,
        _inode=inode,
    )

"""Whether an image is whole: everything in it is read, once."""

from __future__ import annotations

import os
from collections.abc import Callable

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import tree
from hpcbinder.squashfs.archive import Archive
from hpcbinder.squashfs.tree import Directory, File, Inode

MAX_PROBLEMS = 100
"""Found ones after which the search ends."""


class Checker:
    """Looks an image over.

    Time is linear in the image: no stored byte is unpacked twice, since blocks that overlap are a problem themselves.

    Args:
        archive: The image; that its tables can be read has been seen when it was opened.
        progress: Hears how much of the data has been read, 0 to 1.
    """

    def __init__(self, archive: Archive, progress: Callable[[float], None]) -> None:
        self._archive = archive
        self._progress = progress
        self.problems: list[str] = []

    def run(self) -> list[str]:
        """What is wrong, one line each, at most MAX_PROBLEMS."""
        try:
            root = self._archive.load()
            files = self._inodes(root)
            self._attributes()
            self._data(files)
        except ConvertError as error:
            self._found(error.message)
        except _Enough:
            self.problems.append("and more: this image is not worth reading on")
        return self.problems

    def _found(self, problem: str) -> None:
        if len(self.problems) >= MAX_PROBLEMS:
            raise _Enough
        self.problems.append(problem)

    def _inodes(self, root: Directory) -> list[tuple[bytes, File]]:
        """Check what inodes and listings say of each other; gives the files, each under one of its names."""
        block = self._archive.superblock
        names: dict[int, int] = {}
        inodes: dict[int, Inode] = {}
        files: list[tuple[bytes, File]] = []
        self._directory(b"", root, root.parent)
        for path, inode in [(b"", root), *tree.walk(root)]:
            known = inodes.setdefault(inode.number, inode)
            if known is not inode:
                self._found(f"{_shown(path)} has the inode number of another file")
            names[id(inode)] = names.get(id(inode), 0) + 1
            if isinstance(inode, Directory):
                for name, below in inode.entries.items():
                    if isinstance(below, Directory):
                        self._directory(path + b"/" + name, below, inode.number)
            elif isinstance(inode, File) and names[id(inode)] == 1:
                files.append((path, inode))
        for number, inode in inodes.items():
            if not 0 < number <= block.inode_count:
                self._found(f"an inode has number {number}, which is not from 1 to {block.inode_count}")
            if not isinstance(inode, Directory) and inode.nlink != names[id(inode)]:
                self._found(f"inode {number} says it has {inode.nlink} names and has {names[id(inode)]}")
        if len(inodes) != block.inode_count:
            self._found(f"the superblock says there are {block.inode_count} inodes, and there are {len(inodes)}")
        for number, reference in enumerate(self._archive.exports(), 1):
            if number in inodes and inodes[number].reference != reference:
                self._found(f"the export table says inode {number} is where it is not")
        return files

    def _directory(self, path: bytes, directory: Directory, parent: int) -> None:
        if directory.parent != parent:
            self._found(f"directory {_shown(path)} says it is in another one")
        entries = list(directory.entries)
        if entries != sorted(entries):
            self._found(f"directory {_shown(path)} is not sorted, so that the kernel does not find all names")
        elif not self._archive.index_fits(directory):
            self._found(f"the index of directory {_shown(path)} is wrong, so that the kernel does not find all names")

    def _attributes(self) -> None:
        attributes = self._archive.xattrs
        for number in range(attributes.count if attributes else 0):
            assert attributes is not None
            attributes.get(number)

    def _data(self, files: list[tuple[bytes, File]]) -> None:
        block_size = self._archive.superblock.block_size
        # Start -> size word, bytes it must unpack to (of a fragment: at least), and whose it is.
        blocks: dict[int, tuple[int, int, bytes | int]] = {}
        tails: dict[int, int] = {}
        for path, file in files:
            data = file.data
            start = data.start
            for number, word in enumerate(data.sizes() if data.words else ()):
                if word & tree.STORED_SIZE:
                    length = min(file.size - number * block_size, block_size)
                    if blocks.setdefault(start, (word, length, path))[:2] != (word, length):
                        self._found(f"{_shown(path)}: a block is stored inside another one")
                    start += word & tree.STORED_SIZE
            left = file.size - len(data.words) // 4 * block_size
            if left > 0:
                tails[data.fragment] = max(tails.get(data.fragment, 0), data.offset + left)
        for index in range(self._archive.superblock.fragment_count):
            start, word = self._archive.fragment(index)
            if start in blocks:
                self._found(f"fragment block {index} is stored inside another block")
            blocks[start] = (word, tails.get(index, 0), index)
        self._read(blocks)

    def _read(self, blocks: dict[int, tuple[int, int, bytes | int]]) -> None:
        end = done = 0
        total = sum(word & tree.STORED_SIZE for word, _, _ in blocks.values())
        for start, (word, length, owner) in sorted(blocks.items()):
            what = f"fragment block {owner}" if isinstance(owner, int) else _shown(owner)
            if start < max(end, self._archive.data_start):
                self._found(f"{what}: a block is stored inside another one")
                continue
            end = start + (word & tree.STORED_SIZE)
            try:
                found = len(self._archive.block(start, word))
                if found != length and not (isinstance(owner, int) and found > length):
                    self._found(f"{what}: a block has {found} bytes where it should have {length}")
            except ConvertError as error:
                self._found(f"{what}: {error.message}")
            done += word & tree.STORED_SIZE
            self._progress(done / total)


class _Enough(Exception):
    pass


def _shown(path: bytes) -> str:
    return "/" + os.fsdecode(path)

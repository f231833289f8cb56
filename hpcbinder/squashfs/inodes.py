"""Inode records (format.adoc, "Inode Table"): types 1 to 7 in their short form, 8 to 14 in the extended one."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import tree
from hpcbinder.squashfs.metadata import BLOCK
from hpcbinder.squashfs.tree import Data, Directory, File, Inode, Special, Symlink
from hpcbinder.squashfs.xattrs import NO_XATTRS, Xattrs

_HEADER = struct.Struct("<HHHHII")
_WHOLE_SHORT_FILE = struct.Struct("<HHHHIIIIII")
_SHORT_DIRECTORY = struct.Struct("<IIHHI")
_DIRECTORY = struct.Struct("<IIIIHHI")
_SHORT_FILE = struct.Struct("<IIII")
_FILE = struct.Struct("<QQQIIII")
_SYMLINK = struct.Struct("<II")
_DEVICE = struct.Struct("<II")
_XATTRS = struct.Struct("<I")
_INDEX = struct.Struct("<III")
_EXTENDED = 7
_FILES = (tree.FILE, tree.FILE + _EXTENDED)
_LISTING_EXTRA = 3
"""A listing's size on disk counts "." and ".." as three bytes that are not there."""

MAX_TARGET = 4096
"""Bytes of a symbolic link's target; the kernel reads no more than a page."""
MAX_WORDS = 1 << 24
"""Blocks of one file: 2 TiB at 128 KiB."""


def pack(inode: Inode, uid: int, gid: int, xattrs: int = NO_XATTRS) -> bytes:
    """The record of anything but a directory.

    Args:
        inode: With its number and nlink given, its data where they will be.
        uid: Index of its owner in the id table.
        gid: Of its group.
        xattrs: Number of its set of extended attributes.
    """
    kind = inode.type
    if isinstance(inode, File):
        data = inode.data
        if max(data.start, inode.size) >> 32 or inode.nlink > 1 or data.sparse or xattrs != NO_XATTRS:
            body = _FILE.pack(data.start, inode.size, data.sparse, inode.nlink, data.fragment, data.offset, xattrs)
            kind += _EXTENDED
            body += data.words
        else:
            record = _WHOLE_SHORT_FILE.pack(
                kind, inode.mode, uid, gid, inode.mtime, inode.number,
                data.start, data.fragment, data.offset, inode.size,
            )  # fmt: skip
            return record + data.words if data.words else record
    elif isinstance(inode, Symlink):
        body = _SYMLINK.pack(inode.nlink, len(inode.target)) + inode.target
    elif isinstance(inode, Special) and inode.type in (tree.BLOCK_DEVICE, tree.CHARACTER_DEVICE):
        body = _DEVICE.pack(inode.nlink, inode.device)
    else:
        body = struct.pack("<I", inode.nlink)
    return _HEADER.pack(kind, inode.mode, uid, gid, inode.mtime, inode.number) + body


def pack_directory(
    inode: Directory,
    uid: int,
    gid: int,
    block: int,
    offset: int,
    length: int,
    index: Sequence[tuple[int, int, bytes]],
    xattrs: int = NO_XATTRS,
) -> bytes:
    """The record of a directory.

    Args:
        inode: With its number, nlink and parent given.
        uid: Index of its owner in the id table.
        gid: Of its group.
        block: Packed offset in the directory table of the block its listing begins in.
        offset: Where in that block.
        length: Bytes of the listing.
        index: For a long listing: (offset in the listing, block, first name) of runs that begin a new block.
        xattrs: Number of its set of extended attributes.
    """
    size = length + _LISTING_EXTRA
    if size < 1 << 16 and not index and xattrs == NO_XATTRS:
        body = _SHORT_DIRECTORY.pack(block, inode.nlink, size, offset, inode.parent)
        return _HEADER.pack(tree.DIRECTORY, inode.mode, uid, gid, inode.mtime, inode.number) + body
    body = _DIRECTORY.pack(inode.nlink, size, block, inode.parent, len(index), offset, xattrs)
    body += b"".join(_INDEX.pack(where, start, len(name) - 1) + name for where, start, name in index)
    return _HEADER.pack(tree.DIRECTORY + _EXTENDED, inode.mode, uid, gid, inode.mtime, inode.number) + body


class InodeReader:
    """Reads records out of an unpacked inode table.

    Args:
        data: The table.
        ids: The id table's numbers.
        block_log: Binary logarithm of the image's block size.
        fragments: How many fragment blocks the image has.
        data_end: Where in the image the data blocks end.
        xattrs: Gives the set of extended attributes of a number.
    """

    def __init__(
        self,
        data: bytes,
        ids: Sequence[int],
        block_log: int,
        fragments: int,
        data_end: int,
        xattrs: Callable[[int], Xattrs],
    ) -> None:
        self._data = data
        self._ids = ids
        self._block_log = block_log
        self._block_size = 1 << block_log
        self._fragments = fragments
        self._data_end = data_end
        self._xattrs = xattrs

    def parse(self, position: int) -> tuple[Inode, int]:
        """Read one record.

        Args:
            position: Where in the table.

        Returns:
            It, and where it ends. A directory's listing is (block << 16 | offset, length), not read yet.

        Raises:
            ConvertError: It is damaged.
        """
        try:
            kind, mode, uid, gid, mtime, number = _HEADER.unpack_from(self._data, position)
            who = (mode & 0o7777, self._ids[uid], self._ids[gid], mtime)
            position += _HEADER.size
            inode: Inode
            if kind in _FILES:
                inode, position = self._file(kind, position, who)
            elif kind in (tree.DIRECTORY, tree.DIRECTORY + _EXTENDED):
                inode, position = self._directory(kind, position, who)
            elif kind in (tree.SYMLINK, tree.SYMLINK + _EXTENDED):
                nlink, length = _SYMLINK.unpack_from(self._data, position)
                position += _SYMLINK.size
                target = self._data[position : position + length]
                if not 0 < length <= MAX_TARGET or len(target) != length or b"\0" in target:
                    raise ConvertError("damaged squashfs image: impossible symbolic link")
                inode = Symlink(*who, target)
                inode.nlink = nlink
                position += length
                if kind > _EXTENDED:
                    inode.xattrs, position = self._attributes(position)
            elif kind % _EXTENDED in (4, 5) and kind < 14:
                nlink, device = _DEVICE.unpack_from(self._data, position)
                inode = Special(*who, kind % _EXTENDED, device)
                inode.nlink = nlink
                position += _DEVICE.size
                if kind > _EXTENDED:
                    inode.xattrs, position = self._attributes(position)
            elif kind in (6, 7, 13, 14):
                (nlink,) = struct.unpack_from("<I", self._data, position)
                inode = Special(*who, (kind - 1) % _EXTENDED + 1, 0)
                inode.nlink = nlink
                position += 4
                if kind > _EXTENDED:
                    inode.xattrs, position = self._attributes(position)
            else:
                raise ConvertError(f"damaged squashfs image: inode type {kind}")
        except (struct.error, IndexError):
            raise ConvertError("damaged squashfs image: an inode is cut off") from None
        inode.number = number
        return inode, position

    def index(self, position: int) -> list[tuple[int, int, bytes]]:
        """A directory's index: (offset in the listing, packed offset of the block, name); empty if it has none.

        Raises:
            ConvertError: It is cut off.
        """
        found = []
        try:
            (kind,) = struct.unpack_from("<H", self._data, position)
            if kind != tree.DIRECTORY + _EXTENDED:
                return []
            position += _HEADER.size
            *_, count, _, _ = _DIRECTORY.unpack_from(self._data, position)
            position += _DIRECTORY.size
            for _ in range(count):
                where, block, size = _INDEX.unpack_from(self._data, position)
                position += _INDEX.size
                name = self._data[position : position + size + 1]
                position += size + 1
                found.append((where, block, name))
        except struct.error:
            raise ConvertError("damaged squashfs image: an inode is cut off") from None
        return found

    def _attributes(self, position: int) -> tuple[Xattrs, int]:
        (number,) = _XATTRS.unpack_from(self._data, position)
        return self._xattrs(number), position + _XATTRS.size

    def _directory(self, kind: int, position: int, who: tuple[int, int, int, int]) -> tuple[Directory, int]:
        if kind == tree.DIRECTORY:
            block, nlink, size, offset, parent = _SHORT_DIRECTORY.unpack_from(self._data, position)
            position += _SHORT_DIRECTORY.size
            xattrs = NO_XATTRS
        else:
            nlink, size, block, parent, _, offset, xattrs = _DIRECTORY.unpack_from(self._data, position)
            position += _DIRECTORY.size
        if offset >= BLOCK:
            raise ConvertError("damaged squashfs image: a listing lies outside its block")
        inode = Directory(*who)
        inode.nlink = nlink
        inode.parent = parent
        inode.xattrs = self._xattrs(xattrs)
        inode.listing = (block << 16 | offset, max(size - _LISTING_EXTRA, 0))
        return inode, position

    def _file(self, kind: int, position: int, who: tuple[int, int, int, int]) -> tuple[File, int]:
        if kind == tree.FILE:
            start, fragment, offset, size = _SHORT_FILE.unpack_from(self._data, position)
            sparse, nlink, xattrs = 0, 1, NO_XATTRS
            position += _SHORT_FILE.size
        else:
            start, size, sparse, nlink, fragment, offset, xattrs = _FILE.unpack_from(self._data, position)
            position += _FILE.size
        if fragment == tree.NO_FRAGMENT:
            count = -(-size >> self._block_log)
            offset = 0
        else:
            count = size >> self._block_log
            if fragment >= self._fragments or offset + (size & (self._block_size - 1)) > self._block_size:
                raise ConvertError("damaged squashfs image: a file's tail lies outside its fragment")
        data = Data(start, b"", sparse if sparse < size else size, fragment, offset)
        if count:
            data.words = self._block_words(position, count, start)
            position += 4 * count
        inode = File(*who, size, data)
        inode.nlink = nlink
        if xattrs != NO_XATTRS:
            inode.xattrs = self._xattrs(xattrs)
        return inode, position

    def _block_words(self, position: int, count: int, start: int) -> bytes:
        words = self._data[position : position + 4 * count] if count <= MAX_WORDS else b""
        if len(words) != 4 * count:
            raise ConvertError("damaged squashfs image: a file has more blocks than there is room for")
        stored = 0
        for word in filter(None, memoryview(words).cast("I")):
            length = word & tree.STORED_SIZE
            if length > self._block_size or word > tree.STORED_RAW | self._block_size:
                raise ConvertError("damaged squashfs image: a block is longer than a block can be")
            stored += length
        if stored and (start < 96 or start + stored > self._data_end):
            raise ConvertError("damaged squashfs image: a file's blocks lie outside the image's data")
        return words

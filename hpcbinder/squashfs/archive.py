"""An image's tables, read and checked: what merging and browsing have in common.

Nothing in an image is trusted. Every offset, length and count is checked against what is really there, directories that
meet themselves are refused, and the sum of what is read from a table is bounded by the table's size, so that time and
memory are linear in the image. Reads go through `pread`: a file that another process cuts off gives an error, where a
mapped one would kill the process.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from itertools import repeat
from types import TracebackType

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import compressors, directories, metadata, superblock, tables, tree
from hpcbinder.squashfs.inodes import InodeReader
from hpcbinder.squashfs.tree import Directory, File, Inode
from hpcbinder.squashfs.xattrs import NO_XATTRS, XattrReader, Xattrs

METADATA_LIMIT = 256 << 20
"""Bytes of one unpacked table: an image with four million files has about this much."""
MAX_INODES = 1 << 22
_FRAGMENTS = 4
"""Unpacked fragment blocks that are kept at hand."""


class Archive:
    """One image, open for reading.

    Args:
        path: The file.
        offset: Where in it the image begins, in bytes.

    Raises:
        ConvertError: It cannot be read, or is no squashfs 4.0 image we can read.
    """

    def __init__(self, path: str | os.PathLike[str], offset: int = 0) -> None:
        self.path = os.fspath(path)
        self._offset = offset
        self._unpacked_fragments: dict[int, bytes] = {}
        try:
            # A FIFO would be waited for.
            self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise ConvertError(f"cannot open the squashfs image: {error.strerror}", where=self.path) from None
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise ConvertError("not a file")
            self._read_tables()
        except ConvertError as error:
            self.close()
            raise ConvertError(error.message, where=self.path, hint=error.hint) from None
        except BaseException:
            self.close()
            raise

    def _read_tables(self) -> None:
        available = os.fstat(self._file).st_size - self._offset
        block = self.superblock = superblock.parse(self.read(0, min(superblock.SIZE, max(available, 0))), available)
        self.compressor = compressors.by_id(block.compressor)
        self.data_start = superblock.SIZE
        self.compressor_options = b""
        if block.flags & superblock.COMPRESSOR_OPTIONS:
            (header,) = struct.unpack("<H", self.read(superblock.SIZE, 2))
            self.compressor_options = self.read(superblock.SIZE + 2, header & 0x7FFF)
            self.data_start += 2 + (header & 0x7FFF)
        fragments = b""
        directory_end = tables.first_block(self.read, block.id_table)
        if block.fragment_count:
            directory_end = min(directory_end, tables.first_block(self.read, block.fragment_table))
            fragments = self._lookup(block.fragment_table, block.fragment_count, tables.FRAGMENT.size)
        if block.export_table != superblock.NONE:
            directory_end = min(directory_end, tables.first_block(self.read, block.export_table))
        ids = struct.unpack(f"<{block.id_count}I", self._lookup(block.id_table, block.id_count, 4))
        self._fragments = fragments
        self.xattrs: XattrReader | None = None
        if block.xattr_table != superblock.NONE:
            self.xattrs = XattrReader(self.read, block.xattr_table, self.compressor, METADATA_LIMIT)
        self._inode_table = self._table(block.inode_table, block.directory_table)
        self._directory_table = self._table(block.directory_table, directory_end)
        self._inodes = InodeReader(
            self._inode_table.data, ids, block.block_log, block.fragment_count, block.inode_table, self._attributes
        )

    def _attributes(self, number: int) -> Xattrs:
        if number == NO_XATTRS:
            return ()
        if self.xattrs is None:
            raise ConvertError("damaged squashfs image: an inode has extended attributes, and there are none")
        return self.xattrs.get(number)

    def _lookup(self, pointers: int, count: int, width: int) -> bytes:
        if count * width > METADATA_LIMIT:
            raise ConvertError("damaged squashfs image: a lookup table is too long")
        return tables.unpack(self.read, pointers, count, width, self.compressor)

    def _table(self, start: int, end: int) -> metadata.Metadata:
        if not start <= end <= self.superblock.bytes_used:
            raise ConvertError("damaged squashfs image: its tables are out of order")
        if end - start > METADATA_LIMIT:
            raise ConvertError(f"squashfs image has more than {METADATA_LIMIT >> 20} MiB of metadata")
        return metadata.unpack(self.read(start, end - start), self.compressor, METADATA_LIMIT)

    @property
    def file(self) -> int:
        """The open file's descriptor."""
        return self._file

    @property
    def offset(self) -> int:
        """Where in the file the image begins."""
        return self._offset

    def read(self, start: int, length: int) -> bytes:
        """Exactly `length` bytes from offset `start` of the image.

        Raises:
            ConvertError: There are fewer.
        """
        if start < 0 or self._offset + start + length >> 63:
            raise ConvertError("damaged squashfs image: an offset lies outside", where=self.path)
        parts = []
        while length:
            try:
                part = os.pread(self._file, length, self._offset + start)
            except OSError as error:
                raise ConvertError(f"cannot read the squashfs image: {error.strerror}", where=self.path) from None
            if not part:
                raise ConvertError("squashfs image is cut off", where=self.path)
            parts.append(part)
            start += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def root(self) -> Directory:
        """The root directory, its entries not read yet."""
        inode, _ = self.inode(self.superblock.root)
        if not isinstance(inode, Directory):
            raise ConvertError("damaged squashfs image: its root is no directory", where=self.path)
        return inode

    def inode(self, reference: int) -> tuple[Inode, int]:
        """The inode a reference points at, and the bytes its record takes."""
        begin = self._inode_table.position(reference >> 16, reference & 0xFFFF)
        inode, end = self._inodes.parse(begin)
        inode.reference = reference
        return inode, end - begin

    def listing(self, directory: Directory) -> list[tuple[bytes, int, int]]:
        """A directory's names, each with its inode's reference and basic type, as they are stored."""
        where, length = directory.listing
        if not length:
            return []
        position = self._directory_table.position(where >> 16, where & 0xFFFF)
        return list(directories.parse(self._directory_table.data, position, length))

    def folders(self) -> Iterator[tuple[bytes, list[bytes], list[bytes]]]:
        """Every directory's path, and the names in it of directories and of all else. Who takes a name out of the first
        list is not led there.

        Raises:
            ConvertError: The image is damaged.
        """
        room = len(self._directory_table.data)
        known: set[int] = set()
        stack = [(b"", self.superblock.root)]
        while stack:
            path, reference = stack.pop()
            directory, _ = self.inode(reference)
            if not isinstance(directory, Directory) or reference in known:
                raise ConvertError("damaged squashfs image: a listing and its inodes differ", where=self.path)
            known.add(reference)
            room -= directory.listing[1]
            if room < 0 or len(known) > MAX_INODES:
                raise ConvertError("damaged squashfs image: its tables overlap or are too long", where=self.path)
            listing = self.listing(directory)
            below = {name: where for name, where, kind in listing if kind == tree.DIRECTORY}
            inside = list(below)
            yield path, inside, [name for name, _, kind in listing if kind != tree.DIRECTORY]
            stack += [(path + b"/" + name if path else name, below[name]) for name in reversed(inside)]

    def load(self, layer: int = 0) -> Directory:
        """Read the whole tree.

        Args:
            layer: What `Data.layer` of its files becomes.

        Returns:
            Its root.

        Raises:
            ConvertError: The image is damaged.
        """
        root = self.root()
        inode_room, listing_room = len(self._inode_table.data), len(self._directory_table.data)
        known: dict[int, Inode] = {root.reference: root}
        stack = [root]
        parse, place = self._inodes.parse, self._inode_table.position
        while stack:
            directory = stack.pop()
            entries = directory.entries
            listing = self.listing(directory)
            listing_room -= directory.listing[1]
            for name, reference, kind in listing:
                inode = known.get(reference)
                if inode is None:
                    begin = place(reference >> 16, reference & 0xFFFF)
                    inode, end = parse(begin)
                    inode_room -= end - begin
                    inode.reference = reference
                    known[reference] = inode
                    if kind == tree.FILE and isinstance(inode, File):
                        inode.data.layer = layer
                    elif isinstance(inode, Directory):
                        stack.append(inode)
                elif isinstance(inode, Directory):
                    raise ConvertError("damaged squashfs image: a directory has two names", where=self.path)
                if inode.type != kind or name in entries:
                    raise ConvertError("damaged squashfs image: a listing and its inodes differ", where=self.path)
                entries[name] = inode
            if inode_room < 0 or listing_room < 0 or len(known) > MAX_INODES:
                raise ConvertError("damaged squashfs image: its tables overlap or are too long", where=self.path)
        return root

    def fragment(self, index: int) -> tuple[int, int]:
        """Start and size word of a fragment block.

        Raises:
            ConvertError: It does not lie in the image's data.
        """
        start, word, _ = tables.FRAGMENT.unpack_from(self._fragments, index * tables.FRAGMENT.size)
        length = word & tree.STORED_SIZE
        if (
            word > tree.STORED_RAW | self.superblock.block_size
            or not 0 < length <= self.superblock.block_size
            or start < superblock.SIZE
            or start + length > self.superblock.inode_table
        ):
            raise ConvertError("damaged squashfs image: a fragment lies outside the image's data", where=self.path)
        return start, word

    def exports(self) -> tuple[int, ...]:
        """The references of all inodes, in the order of their numbers; empty if the image does not list them."""
        block = self.superblock
        if block.export_table == superblock.NONE:
            return ()
        return struct.unpack(f"<{block.inode_count}Q", self._lookup(block.export_table, block.inode_count, 8))

    def index_fits(self, directory: Directory) -> bool:
        """Whether the index of a long listing, which the kernel looks names up with, leads to where it should."""
        where, length = directory.listing
        index = self._inodes.index(self._inode_table.position(directory.reference >> 16, directory.reference & 0xFFFF))
        if not index:
            return True
        table = self._directory_table
        begin = table.position(where >> 16, where & 0xFFFF)
        runs = directories.runs(table.data, begin, length)
        return all(
            runs.get(offset) == name
            and table.position(block, ((where & 0xFFFF) + offset) % metadata.BLOCK) == begin + offset
            for offset, block, name in index
        )

    def block(self, start: int, word: int) -> bytes:
        """One unpacked data block.

        Args:
            start: Where it is stored.
            word: Its size word.
        """
        stored = self.read(start, word & tree.STORED_SIZE)
        if word & tree.STORED_RAW:
            return stored
        try:
            return self.compressor.decompress(stored, self.superblock.block_size)
        except ConvertError as error:
            raise ConvertError(error.message, where=self.path, hint=error.hint) from None

    def pieces(self, inode: File) -> Iterator[bytes | int]:
        """A file's content in its order: the bytes of a block, or how many bytes are a hole."""
        data, block_size = inode.data, self.superblock.block_size
        left, start = inode.size, data.start
        hole = 0
        for word in data.sizes() if data.words else ():
            length = min(left, block_size)
            left -= length
            if not word & tree.STORED_SIZE:
                hole += length
                continue
            if hole:
                yield hole
                hole = 0
            block = self.block(start, word)
            if len(block) != length:
                raise ConvertError("damaged squashfs image: a block's length is wrong", where=self.path)
            start += word & tree.STORED_SIZE
            yield block
        if hole:
            yield hole
        if left:
            yield self.tail(inode, left)

    def tail(self, inode: File, length: int) -> bytes:
        """What of a file lies in a fragment: its last `length` bytes."""
        data = inode.data
        block = self._unpacked_fragments.get(data.fragment)
        if block is None:
            # Neighbours share one, so that it is asked for again and again.
            if len(self._unpacked_fragments) >= _FRAGMENTS:
                self._unpacked_fragments.clear()
            block = self._unpacked_fragments[data.fragment] = self.block(*self.fragment(data.fragment))
        piece = block[data.offset : data.offset + length]
        if len(piece) != length:
            raise ConvertError("damaged squashfs image: a fragment's length is wrong", where=self.path)
        return piece

    def blocks(self, inode: File) -> Iterator[bytes]:
        """A file's content, at most a block at a time, holes as zeros."""
        block_size = self.superblock.block_size
        for piece in self.pieces(inode):
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from repeat(bytes(block_size), piece // block_size)
                if piece % block_size:
                    yield bytes(piece % block_size)

    def content(self, inode: File) -> bytes:
        """A file's whole content; its size is the caller's to judge first."""
        return b"".join(self.blocks(inode))

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

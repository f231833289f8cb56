"""From a tree whose data are in place to the metadata that follow them, and the superblock."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import directories, inodes, superblock, tables, xattrs
from hpcbinder.squashfs.compressors import Compressor
from hpcbinder.squashfs.metadata import BLOCK, MetadataWriter, raw_block
from hpcbinder.squashfs.output import write_at
from hpcbinder.squashfs.superblock import Superblock
from hpcbinder.squashfs.tree import Directory, File, Inode
from hpcbinder.squashfs.xattrs import NO_XATTRS, XattrWriter

_MAX_IDS = (1 << 16) - 1


def number(root: Directory) -> list[Inode]:
    """Give inode numbers, link counts and parents; sort every directory's entries by name.

    A directory comes after all it holds, its subdirectories' content first and its own files next to each other, so
    that the inodes a listing names are close together. The root is last.

    Returns:
        All inodes in the order of their numbers, 1 first.
    """
    _prepare(root)
    order: list[Inode] = []
    stack = [(root, _subdirectories(root))]
    while stack:
        directory, waiting = stack[-1]
        below = next(waiting, None)
        if below is not None:
            stack.append((below, _subdirectories(below)))
            continue
        stack.pop()
        children: list[Directory] = []
        for inode in directory.entries.values():
            if isinstance(inode, Directory):
                children.append(inode)
                continue
            inode.nlink += 1
            if not inode.number:
                order.append(inode)
                inode.number = len(order)
        order.append(directory)
        directory.number = len(order)
        directory.nlink = 2 + len(children)
        for child in children:
            child.parent = directory.number
    root.parent = len(order) + 1
    return order


def _prepare(root: Directory) -> None:
    stack = [root]
    while stack:
        directory = stack.pop()
        directory.entries = dict(sorted(directory.entries.items()))
        for inode in directory.entries.values():
            inode.number = inode.nlink = 0
            if isinstance(inode, Directory):
                stack.append(inode)


def _subdirectories(directory: Directory) -> Iterator[Directory]:
    return iter([inode for inode in directory.entries.values() if isinstance(inode, Directory)])


def begin(file: int, offset: int, compressor: Compressor) -> int:
    """Write what stands between an image's superblock and its data: the compressor's options.

    Args:
        file: Descriptor of the file.
        offset: Where in it the image begins.
        compressor: The image's.

    Returns:
        Where in the image the data begin.
    """
    options = raw_block(compressor.options)
    write_at(file, options, offset + superblock.SIZE)
    return superblock.SIZE + len(options)


def assemble(
    root: Directory, fragments: Sequence[tuple[int, int]], compressor: Compressor, block_size: int, data_end: int
) -> tuple[bytes, Superblock]:
    """Make all of an image that is not data.

    The tables' order is the one the kernel requires: inodes, directories, fragments, export, ids, extended attributes.
    Of these `user.*` are written, and of files and directories: others have none in Linux (xattr(7)).

    Args:
        root: The tree; every file's data say where in the image they are.
        fragments: (start, size word) of each fragment block.
        compressor: For the metadata; the data must be in the same.
        block_size: Bytes per data block.
        data_end: Where the data end and the metadata begin.

    Returns:
        The metadata, and the superblock.

    Raises:
        ConvertError: The tree has more than the format can hold.
    """
    order = number(root)
    attributes = XattrWriter(compressor)
    inode_table, directory_table, ids = _write_inodes(order, compressor, attributes)
    out = bytearray(inode_table)
    directory_start = data_end + len(out)
    out += directory_table
    fragment_pointers = superblock.NONE
    xattr_pointers = superblock.NONE
    flags = superblock.EXPORTABLE
    if fragments:
        entries = b"".join(tables.FRAGMENT.pack(start, word, 0) for start, word in fragments)
        packed, fragment_pointers = tables.pack(entries, compressor, data_end + len(out))
        out += packed
    else:
        flags |= superblock.NO_FRAGMENTS
    references = struct.pack(f"<{len(order)}Q", *(inode.reference for inode in order))
    packed, export_pointers = tables.pack(references, compressor, data_end + len(out))
    out += packed
    packed, id_pointers = tables.pack(struct.pack(f"<{len(ids)}I", *ids), compressor, data_end + len(out))
    out += packed
    table = attributes.finish(data_end + len(out))
    if table is not None:
        packed, xattr_pointers = table
        out += packed
    else:
        flags |= superblock.NO_XATTRS
    if compressor.options:
        flags |= superblock.COMPRESSOR_OPTIONS
    return bytes(out), Superblock(
        magic=superblock.MAGIC,
        inode_count=len(order),
        mkfs_time=0,
        block_size=block_size,
        fragment_count=len(fragments),
        compressor=compressor.id,
        block_log=block_size.bit_length() - 1,
        flags=flags,
        id_count=len(ids),
        major=4,
        minor=0,
        root=root.reference,
        bytes_used=data_end + len(out),
        id_table=id_pointers,
        xattr_table=xattr_pointers,
        inode_table=data_end,
        directory_table=directory_start,
        fragment_table=fragment_pointers,
        export_table=export_pointers,
    )


def _write_inodes(
    order: Sequence[Inode], compressor: Compressor, attributes: XattrWriter
) -> tuple[bytearray, bytearray, dict[int, int]]:
    """The inode table, the directory table, and the id table's numbers with their indices."""
    inode_table, directory_table = MetadataWriter(compressor), MetadataWriter(compressor)
    ids: dict[int, int] = {}
    for inode in order:
        uid = ids.get(inode.uid)
        if uid is None:
            uid = ids[inode.uid] = len(ids)
        gid = ids.get(inode.gid)
        if gid is None:
            gid = ids[inode.gid] = len(ids)
        if len(ids) > _MAX_IDS:
            raise ConvertError(f"more than {_MAX_IDS} different owners and groups, which is all squashfs can hold")
        number = NO_XATTRS
        if inode.xattrs and isinstance(inode, (Directory, File)):
            number = attributes.number(xattrs.kept(inode.xattrs))
        if isinstance(inode, Directory):
            long = sum(map(len, inode.entries)) + 9 * len(inode.entries) > BLOCK
            block, offset = directory_table.block, directory_table.offset
            length, index = directories.write(inode.entries.items(), directory_table, indexed=long)
            if length >> 31 or len(index) >> 16:
                raise ConvertError("a directory has more entries than squashfs can hold")
            record = inodes.pack_directory(inode, uid, gid, block, offset, length, index, number)
        else:
            record = inodes.pack(inode, uid, gid, number)
        inode.reference = inode_table.write(record)
    return inode_table.finish(), directory_table.finish(), ids

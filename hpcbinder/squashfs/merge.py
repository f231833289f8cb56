"""Layers into one image without unpacking a block of data: stored blocks are copied, only the metadata are made anew.

A data block means the same wherever it lies, as long as block size and compressor agree, so a file moves by adding to
its start, and its tail by renumbering fragment blocks. What no file of the result uses is left behind, and what files
of several layers have in common is there once (see `sharing`). Whiteouts are those of the OCI image spec (layer.md,
"Whiteouts"): in one layer an opaque mark comes first, then whiteouts, then what the layer has, whatever order its tar
had them in.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import compressors, emit, notes, tree
from hpcbinder.squashfs.archive import Archive
from hpcbinder.squashfs.ingest import new_directory
from hpcbinder.squashfs.memory import no_cycles
from hpcbinder.squashfs.output import WriteError, finish_image, write_at
from hpcbinder.squashfs.sharing import Contents
from hpcbinder.squashfs.tree import NO_FRAGMENT, Data, Directory, File, Inode

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_COPY_CHUNK = 1 << 30
_PAGE = 4096
_SHARED = 1 << 20
"""Bytes from which on a piece begins where it lies in its layer's page, so that file systems can share its blocks."""
_NO_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.EIO}
"""What `copy_file_range` fails with where the kernel or a file system cannot do it."""


def merge(
    layers: Sequence[Path],
    out: BinaryIO,
    *,
    offset: int = 0,
    dated: tuple[int, int] | None = None,
    rooted: bool = False,
) -> int:
    """Make one image of layers that `write_layer` made.

    The bytes depend on the layers and `dated` only. Hard links stay, and `user.*` extended attributes.

    Args:
        layers: Their files, the lowest first; at least one, all of one block size and compressor (not lzo).
        out: File open for reading and writing, with a descriptor; written from `offset` on, not shortened, and left
            positioned behind the image.
        offset: Where in `out` the image begins, in bytes.
        dated: (since, to), Unix times (s): directories of `since` or newer get the time `to`. A directory that both an
            engine (for COPY, for mounts) and a build step changed has the time of the build or the step's fixed one,
            as it came about.
        rooted: All belongs to root, for a namespace that has nobody else.

    Returns:
        The image's bytes, padded to a multiple of 4096.

    Raises:
        ConvertError: A layer cannot be read, is damaged or does not fit the others, a hard link leads nowhere, or `out`
            cannot be written.
    """
    from concurrent.futures import ThreadPoolExecutor

    if not layers:
        raise ConvertError("no layers to merge")
    out.flush()
    with no_cycles(), ExitStack() as stack:
        archives = [stack.enter_context(Archive(path)) for path in layers]
        _agree(archives)
        root = new_directory()
        uppers = [archive.load(index) for index, archive in enumerate(archives)]
        contents = Contents(archives, uppers)
        for archive, upper in zip(archives, uppers, strict=True):
            apply(root, upper, links_of(archive, upper))
        contents.share(root)
        if dated is not None:
            _date(root, *dated)
        if rooted:
            _own(root)
        first = archives[0]
        mover = _Mover(archives, out.fileno(), offset, emit.begin(out.fileno(), offset, first.compressor))
        for data in _contents(root):
            mover.want(data)
        mover.place()
        with ThreadPoolExecutor(1, thread_name_prefix="merge") as copier:
            copying = copier.submit(mover.copy)
            # At the default level, whatever the layers have: it is about one byte in a hundred.
            metadata, block = emit.assemble(
                root, mover.fragments, first.compressor, first.superblock.block_size, mover.end
            )
            copying.result()
        size = finish_image(out.fileno(), offset, metadata, block)
    out.seek(offset + size)
    return size


def _own(root: Directory) -> None:
    stack: list[Inode] = [root]
    while stack:
        inode = stack.pop()
        inode.uid = inode.gid = 0
        if isinstance(inode, Directory):
            stack.extend(inode.entries.values())


def _agree(archives: Sequence[Archive]) -> None:
    first = archives[0].superblock
    if first.compressor not in compressors.WRITABLE:
        raise ConvertError("only layers in gzip, zstd, xz or lz4 can be merged", where=archives[0].path)
    for archive in archives[1:]:
        block = archive.superblock
        if (block.block_size, block.compressor) != (first.block_size, first.compressor):
            raise ConvertError(
                f"has blocks of {block.block_size} bytes in {compressors.NAMES[block.compressor]}, the first layer has "
                f"{first.block_size} in {compressors.NAMES[first.compressor]}",
                where=archive.path,
            )


def links_of(archive: Archive, root: Directory) -> list[tuple[bytes, bytes]]:
    """A layer's hard links to what it has not: (path, path of the other name).

    Raises:
        ConvertError: The layer is damaged.
    """
    inode = root.entries.get(notes.LINKS)
    if not isinstance(inode, File):
        return []
    if inode.size > notes.MAX_SIZE:
        raise ConvertError("damaged layer: its list of hard links is too long", where=archive.path)
    try:
        return notes.unpack_links(archive.content(inode))
    except ConvertError as error:
        raise ConvertError(error.message, where=archive.path) from None


def apply(root: Directory, upper: Directory, links: Sequence[tuple[bytes, bytes]]) -> None:
    """Lay one layer over a tree.

    Args:
        root: The tree so far; changed in place, takes over the layer's inodes.
        upper: The layer's root, `.wh.` names and all.
        links: (path, other name) of hard links that may lead into the tree.

    Raises:
        ConvertError: A hard link's other name is not there.
    """
    before = [find(root, target) for _, target in links]
    stack = [(root, upper)]
    while stack:
        lower, over = stack.pop()
        if notes.IMPLIED not in over.entries:
            lower.mode, lower.uid, lower.gid, lower.mtime = over.mode, over.uid, over.gid, over.mtime
            lower.xattrs = over.xattrs
        entries = lower.entries
        if _OPAQUE in over.entries:
            entries.clear()
        hidden = [name for name in over.entries if name.startswith(_WHITEOUT)]
        for name in hidden:
            entries.pop(name[len(_WHITEOUT) :], None)
            del over.entries[name]
        for name, inode in over.entries.items():
            if not isinstance(inode, Directory):
                entries[name] = inode
                continue
            there = entries.get(name)
            if not isinstance(there, Directory):
                # An empty one that takes the upper's content, whose whiteouts have nothing left to hide there.
                there = entries[name] = Directory(inode.mode, inode.uid, inode.gid, inode.mtime)
                there.xattrs = inode.xattrs
            stack.append((there, inode))
    for (path, target), lower_inode in zip(links, before, strict=True):
        found = find(root, target) or lower_inode
        folder, _, name = path.rpartition(b"/")
        parent = find(root, folder) if folder else root
        if found is None or isinstance(found, Directory) or not isinstance(parent, Directory):
            raise ConvertError(f"hard link {os.fsdecode(path)!r} leads to {os.fsdecode(target)!r}, which no layer has")
        parent.entries[name] = found


def find(root: Directory, path: bytes) -> Inode | None:
    """What a tree has at a path."""
    here: Inode | None = root
    for name in path.split(b"/"):
        here = here.entries.get(name) if isinstance(here, Directory) else None
    return here


def _date(root: Directory, since: int, to: int) -> None:
    stack = [root]
    while stack:
        folder = stack.pop()
        if folder.mtime >= since:
            folder.mtime = to
        stack += [inode for inode in folder.entries.values() if isinstance(inode, Directory)]


def _contents(root: Directory) -> Iterator[Data]:
    """Where each file's data are; of a file with several names once."""
    stack = [root]
    seen: set[Data] = set()
    while stack:
        for inode in stack.pop().entries.values():
            if isinstance(inode, File):
                if inode.data not in seen:
                    seen.add(inode.data)
                    yield inode.data
            elif isinstance(inode, Directory):
                stack.append(inode)


class _Mover:
    """Copies what is wanted of the layers' data and tells files where it goes.

    Attributes:
        fragments: The new fragment table.
        end: Where the data end in the new image.
    """

    def __init__(self, archives: Sequence[Archive], file: int, offset: int, start: int) -> None:
        self._archives = archives
        self._file = file
        self._offset = offset
        self._wanted: list[list[Data]] = [[] for _ in archives]
        # What is copied from where to where: layer, start, length, new start.
        self._runs: list[tuple[Archive, int, int, int]] = []
        self.fragments: list[tuple[int, int]] = []
        self._start = self.end = start

    def want(self, data: Data) -> None:
        """Have a file's data copied."""
        if data.words or data.fragment != NO_FRAGMENT:
            self._wanted[data.layer].append(data)

    def copy(self) -> None:
        """Copy all that has been given a place."""
        end = self._start
        for archive, start, length, position in self._runs:
            write_at(self._file, bytes(position - end), self._offset + end)
            _copy(archive, start, length, self._file, self._offset + position)
            end = position + length

    def place(self) -> None:
        """Change all that was wanted to where it will be."""
        for archive, wanted in zip(self._archives, self._wanted, strict=True):
            extents: dict[int, int] = {}
            for data in wanted:
                stored = data.stored()
                if stored:
                    extents[data.start] = max(stored, extents.get(data.start, 0))
                else:
                    data.start = 0
            fragments = {
                index: archive.fragment(index)
                for index in sorted({data.fragment for data in wanted if data.fragment != NO_FRAGMENT})
            }
            for start, word in fragments.values():
                extents[start] = max(word & tree.STORED_SIZE, extents.get(start, 0))
            runs = _runs(extents)
            starts = [start for start, _ in runs]
            deltas = []
            for start, length in runs:
                if length >= _SHARED:
                    self.end += (start - self.end) % _PAGE
                deltas.append(self.end - start)
                self._runs.append((archive, start, length, self.end))
                self.end += length
            renumbered = {}
            for index, (start, word) in fragments.items():
                renumbered[index] = len(self.fragments)
                self.fragments.append((start + deltas[bisect_right(starts, start) - 1], word))
            for data in wanted:
                if data.start:
                    data.start += deltas[bisect_right(starts, data.start) - 1]
                if data.fragment != NO_FRAGMENT:
                    data.fragment = renumbered[data.fragment]


def _runs(extents: dict[int, int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for start, length in sorted(extents.items()):
        if runs and start <= runs[-1][0] + runs[-1][1]:
            begin, before = runs[-1]
            runs[-1] = (begin, max(before, start + length - begin))
        else:
            runs.append((start, length))
    return runs


def _copy(archive: Archive, start: int, length: int, file: int, position: int) -> None:
    source = archive.offset + start
    while length:
        # Whole blocks can be shared: what comes before the first of them is copied for itself.
        head = -source % _PAGE if (position - source) % _PAGE == 0 else 0
        count = min(length, head or _COPY_CHUNK)
        try:
            count = os.copy_file_range(archive.file, file, count, source, position)
        except AttributeError:
            count = 0  # a Python made for C libraries without it
        except OSError as error:
            if error.errno not in _NO_COPY:
                raise WriteError(f"cannot write the squashfs image: {error.strerror}") from None
            count = 0
        if not count:
            break
        source += count
        position += count
        length -= count
    source -= archive.offset
    while length:
        data = archive.read(source, min(length, 1 << 20))
        write_at(file, data, position)
        source += len(data)
        position += len(data)
        length -= len(data)

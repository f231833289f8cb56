"""Squashed layers as the tar of one layer again (OCI image spec, layer.md): what `write_layer` does, undone.

Nothing is unpacked to disk. Several layers become the one that does what they do, one on the other: what they hide of
layers below stays hidden. The same layers give the same bytes: names sorted, a directory's whiteouts before what it
has, and pax headers only where a plain one has no room.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import notes, tree
from hpcbinder.squashfs.archive import Archive
from hpcbinder.squashfs.ingest import new_directory
from hpcbinder.squashfs.memory import no_cycles
from hpcbinder.squashfs.merge import find, links_of
from hpcbinder.squashfs.tree import Data, Directory, File, Inode, Special, Symlink

if TYPE_CHECKING:
    from typing_extensions import Buffer

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_OTHERS = b".wh..wh."
"""How the names begin of what AUFS noted for itself."""
_PIECE = 1 << 20
_TYPES = {
    tree.BLOCK_DEVICE: tarfile.BLKTYPE,
    tree.CHARACTER_DEVICE: tarfile.CHRTYPE,
    tree.FIFO: tarfile.FIFOTYPE,
}
"""A socket is in no tar, and is nothing when nobody listens to it."""


def open_tar(layers: Sequence[Path]) -> BinaryIO:
    """A layer's tar, to be read once to its end.

    Args:
        layers: Files that `write_layer` made, the lowest first; at least one.

    Raises:
        ConvertError: On reading: a layer is damaged.
    """
    return cast(BinaryIO, io.BufferedReader(_Pieces(_tar(layers)), _PIECE))


class _Pieces(io.RawIOBase):
    """A stream of pieces, none of which is empty."""

    def __init__(self, pieces: Generator[bytes, None, None]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._pieces.close()
        super().close()

    def readinto(self, buffer: Buffer) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        view = memoryview(buffer)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class _Elsewhere(Inode):
    """Another name of a file that only a layer below has."""

    __slots__ = ("target",)

    def __init__(self, target: bytes) -> None:
        super().__init__(0o644, 0, 0, 0)
        self.target = target


def _tar(layers: Sequence[Path]) -> Generator[bytes, None, None]:
    with ExitStack() as stack:
        archives = [stack.enter_context(Archive(path)) for path in layers]
        with no_cycles():
            root = new_directory()
            root.entries[notes.IMPLIED] = _mark()
            for number, archive in enumerate(archives):
                upper = archive.load(number)
                _lay(root, upper, links_of(archive, upper))
        written = 0
        if notes.IMPLIED not in root.entries:
            yield (header := _header(b".", root))
            written += len(header)
        names: dict[Inode, bytes] = {}
        for path, inode in _walk(root):
            first = names.get(inode)
            if not (header := _header(path, inode, first)):
                continue
            yield header
            written += len(header)
            if inode.nlink > 1 and not isinstance(inode, Directory):
                names.setdefault(inode, path)
            if isinstance(inode, File) and first is None:
                yield from archives[inode.data.layer].blocks(inode)
                if padding := -inode.size % tarfile.BLOCKSIZE:
                    yield bytes(padding)
                written += inode.size + padding
        # Two zero blocks, then up to a full record as tar has it.
        written += 2 * tarfile.BLOCKSIZE
        yield bytes(2 * tarfile.BLOCKSIZE + -written % tarfile.RECORDSIZE)


def _mark() -> File:
    return File(0o644, 0, 0, 0, 0, Data())


def _lay(root: Directory, upper: Directory, links: Sequence[tuple[bytes, bytes]]) -> None:
    """Lay one layer over what others are together, as `merge` does, but with what hides something below them kept."""
    before = [find(root, target) for _, target in links]
    stack = [(root, upper)]
    while stack:
        lower, over = stack.pop()
        entries = lower.entries
        if notes.IMPLIED not in over.entries:
            lower.mode, lower.uid, lower.gid, lower.mtime = over.mode, over.uid, over.gid, over.mtime
            lower.xattrs = over.xattrs
            entries.pop(notes.IMPLIED, None)
        if _OPAQUE in over.entries:
            implied = entries.get(notes.IMPLIED)
            entries.clear()
            entries[_OPAQUE] = over.entries[_OPAQUE]
            if implied is not None:
                entries[notes.IMPLIED] = implied
        hidden = [name for name in over.entries if name.startswith(_WHITEOUT)]
        for name in hidden:
            if not name.startswith(_OTHERS):
                entries.pop(name[len(_WHITEOUT) :], None)
                entries[name] = over.entries[name]
        for name, inode in over.entries.items():
            if name.startswith(_WHITEOUT):
                continue
            whiteout = entries.pop(_WHITEOUT + name, None)
            there = entries.get(name)
            if not isinstance(inode, Directory):
                entries[name] = inode  # which hides by itself what is below
            elif isinstance(there, Directory):
                stack.append((there, inode))
            else:
                new = entries[name] = Directory(inode.mode, inode.uid, inode.gid, inode.mtime)
                new.xattrs = inode.xattrs
                if whiteout is not None or there is not None:
                    new.entries[_OPAQUE] = _mark()
                elif notes.IMPLIED in inode.entries:
                    new.entries[notes.IMPLIED] = _mark()
                stack.append((new, inode))
    for (path, target), inode_before in zip(links, before, strict=True):
        found = find(root, target) or inode_before
        folder, _, name = path.rpartition(b"/")
        parent = find(root, folder) if folder else root
        if not isinstance(parent, Directory):
            raise ConvertError(f"hard link {os.fsdecode(path)!r} lies in no directory")
        if found is None or isinstance(found, Directory):
            parent.entries[name] = _Elsewhere(target)
        else:
            found.nlink += 1
            parent.entries[name] = found


def _walk(root: Directory) -> Iterator[tuple[bytes, Inode]]:
    """Every name, a directory before its content, whiteouts before all else in it; without directories that the layer
    only leads through."""
    stack = [(b"", iter(_sorted(root)))]
    while stack:
        prefix, entries = stack[-1]
        for name, inode in entries:
            path = prefix + name
            if not isinstance(inode, Directory):
                yield path, inode
                continue
            if notes.IMPLIED not in inode.entries:
                yield path, inode
            stack.append((path + b"/", iter(_sorted(inode))))
            break
        else:
            stack.pop()


def _sorted(directory: Directory) -> list[tuple[bytes, Inode]]:
    there = [(not name.startswith(_WHITEOUT), name, inode) for name, inode in directory.entries.items()]
    there.sort(key=lambda entry: entry[:2])
    return [(name, inode) for _, name, inode in there if name not in notes.NAMES]


def _header(path: bytes, inode: Inode, first: bytes | None = None) -> bytes:
    """A member's headers; empty for what a tar has not.

    Args:
        first: The name that the same file was written by already.
    """
    member = tarfile.TarInfo(_text(path))
    member.mode, member.uid, member.gid, member.mtime = inode.mode, inode.uid, inode.gid, inode.mtime
    if isinstance(inode, Directory):
        member.type = tarfile.DIRTYPE
    elif isinstance(inode, _Elsewhere):
        member.type, member.linkname = tarfile.LNKTYPE, _text(inode.target)
    elif first is not None:
        member.type, member.linkname = tarfile.LNKTYPE, _text(first)
    elif isinstance(inode, File):
        member.size = inode.size
    elif isinstance(inode, Symlink):
        member.type, member.linkname = tarfile.SYMTYPE, _text(inode.target)
    elif isinstance(inode, Special) and inode.type in _TYPES:
        member.type = _TYPES[inode.type]
        if inode.type != tree.FIFO:
            member.devmajor, member.devminor = tree.device_parts(inode.device)
    else:
        return b""
    if inode.xattrs and member.type != tarfile.LNKTYPE:
        member.pax_headers = {f"SCHILY.xattr.{_text(name)}": _text(value) for name, value in inode.xattrs}
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")

"""The one squashfs that all formats hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from hpcbinder.convert.files import new_file
from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import merge, tables_uuid


class Merged:
    """The one squashfs all formats hold: merged into the first file that wants it, copied or linked from there.

    Args:
        layers: From the lowest to the topmost.
        dated: See `merge`.
    """

    def __init__(self, layers: Sequence[Path], dated: tuple[int, int] | None) -> None:
        self._layers = layers
        self._dated = dated
        self._place: tuple[Path, int, int] | None = None
        self._may_link = True

    @classmethod
    def existing(cls, path: Path, offset: int, size: int, *, may_link: bool) -> Merged:
        """One that is there already.

        Args:
            offset: Where in `path` it begins, bytes.
            size: Its bytes.
            may_link: Whether files may become other names of `path`, or must be copies because it is somebody else's
                to change.
        """
        merged = cls((), None)
        merged._place, merged._may_link = (path, offset, size), may_link
        return merged

    @property
    def where(self) -> tuple[Path, int, int]:
        """(file, offset, size) of the first copy."""
        if self._place is None:
            raise ValueError("nothing has been merged")
        return self._place

    def uuid(self) -> bytes:
        """A UUID that follows from the image's tables: all names, modes and times, and where the contents lie."""
        file, offset, _ = self.where
        return tables_uuid(file, offset)

    def write(self, path: Path, out: BinaryIO, offset: int) -> int:
        """Write it into the open file `path` at `offset` (bytes) and return its size (bytes)."""
        if self._place is None:
            self._place = (path, offset, merge(self._layers, out, offset=offset, dated=self._dated))
        else:
            source, start, size = self._place
            with source.open("rb") as file:
                _copy(file, start, out, offset, size)
        return self._place[2]

    def whole_file(self, path: Path) -> None:
        """Make `path` a file that is the squashfs and nothing else: another name of one there is already, if any."""
        if self._place is not None and self._place[1] == 0 and self._may_link:
            try:
                path.hardlink_to(self._place[0])
                return
            except OSError:
                pass  # a file system without hard links: a copy
        with new_file(path, 0o644) as out:
            size = self.write(path, out, 0)
        if not self._may_link:
            self._place, self._may_link = (path, 0, size), True

    def rename(self, path: Path, target: Path) -> None:
        """Give a file made by `whole_file` another name."""
        path.replace(target)
        if self._place is not None and self._place[0] == path:
            self._place = (target, *self._place[1:])


def _copy(source: BinaryIO, start: int, out: BinaryIO, offset: int, size: int) -> None:
    """Copy within the kernel where it can: on XFS, btrfs and the like aligned blocks are then shared, not copied."""
    out.flush()
    done = 0
    try:
        while done < size:
            count = os.copy_file_range(source.fileno(), out.fileno(), size - done, start + done, offset + done)
            if count == 0:
                break
            done += count
    except (AttributeError, OSError):
        pass  # Python or the file system cannot; what stays to be done is read and written, and a full disk found then
    source.seek(start + done)
    out.seek(offset + done)
    while done < size:
        block = source.read(min(1 << 20, size - done))
        if not block:
            raise ConvertError("a file that was just written is cut off", where=source.name)
        out.write(block)
        done += len(block)

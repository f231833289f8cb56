"""A squashfs as an image of one layer: what is left to push when no engine holds the image any more."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from hpcbinder.errors import ConvertError
from hpcbinder.model import ImageConfig
from hpcbinder.squashfs import Image, Node

_PIECE = 1 << 20
_RECORD = 512
_TYPES = {
    "directory": tarfile.DIRTYPE,
    "file": tarfile.REGTYPE,
    "symlink": tarfile.SYMTYPE,
    "block": tarfile.BLKTYPE,
    "character": tarfile.CHRTYPE,
    "fifo": tarfile.FIFOTYPE,
}
"""Kinds of files that a tar has; sockets are none of them, and nothing when they are not listened to."""


class SquashedImage:
    """The image whose files are in a squashfs, with owners, modes, times and links; implements `OciImage`.

    Args:
        path: The squashfs, or a file it is in.
        config: What the image is; its layers are not taken over.
        scratch: Folder for the tar of all files.
        offset: Bytes in front of the squashfs in its file.

    Raises:
        ConvertError: The squashfs is damaged.
        OSError: The tar cannot be written.
    """

    def __init__(self, path: Path, config: ImageConfig, scratch: Path, *, offset: int = 0) -> None:
        digest = hashlib.sha256()
        # To unpack it once more would take longer than to keep it.
        self._layer = tempfile.TemporaryFile(prefix="squashed-", dir=scratch)  # noqa: SIM115 (as long as the image)
        with Image.open(path, offset=offset) as image:
            for piece in _tar(image):
                digest.update(piece)
                if len(piece) == _PIECE and piece.count(0) == _PIECE:
                    self._layer.seek(_PIECE, os.SEEK_CUR)  # of a sparse file, which stays one
                else:
                    self._layer.write(piece)
            self._layer.truncate()
        self.config = replace(config, digest="", diff_ids=(f"sha256:{digest.hexdigest()}",))
        self._path = path

    def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
        """See `OciImage.layers`."""
        if missing := sorted(set(wanted) - set(self.config.diff_ids)):
            raise ConvertError(f"the image has no layer {missing[0]}", where=str(self._path))
        for diff_id in self.config.diff_ids if wanted else ():
            self._layer.seek(0)
            yield diff_id, cast(BinaryIO, self._layer)


def _tar(image: Image) -> Iterator[bytes]:
    """The files as a tar in GNU's form, which has room for any bytes in a name."""
    first: dict[int, str] = {}
    for path, node in image.walk():
        if node.kind not in _TYPES:
            continue
        member = _member(path, node)
        if node.kind != "directory" and node.nlink > 1:
            if node.number in first:
                member.type, member.linkname, member.size = tarfile.LNKTYPE, first[node.number], 0
            first.setdefault(node.number, path)
        yield member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        if member.size:
            with image.open_file(path) as file:
                while piece := file.read(_PIECE):
                    yield piece
            yield bytes(-member.size % _RECORD)
    yield bytes(2 * _RECORD)


def _member(path: str, node: Node) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path or ".")
    member.type = _TYPES[node.kind]
    member.mode, member.uid, member.gid, member.mtime = node.mode, node.uid, node.gid, node.mtime
    member.linkname = node.target or ""
    member.size = node.size if node.kind == "file" else 0
    member.devmajor, member.devminor = node.device or (0, 0)
    return member

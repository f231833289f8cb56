"""What a step changed, from an overlay's upper folder to a layer: marks of the overlay become those of a layer.

Overlays say in different ways that something is gone or that a folder hides what is below: the kernel by a character
device 0:0 and an extended attribute (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"),
fuse-overlayfs also by files called `.wh.NAME` and `.wh..wh..opq`, as layers do (OCI image spec, layer.md).
"""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
from collections.abc import Collection
from dataclasses import dataclass
from typing import IO, BinaryIO

from hpcbinder.errors import BuildError
from hpcbinder.squashfs import Image, Node
from hpcbinder.text import one_line

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_XATTR = "SCHILY.xattr."
_OURS = ("user.overlay.", "user.fuseoverlayfs.")
_OPAQUE_XATTR = ("user.overlay.opaque", "user.fuseoverlayfs.opaque")
_ELSEWHERE = ("user.overlay.redirect", "user.overlay.metacopy")
"""Attributes of what has its content in a place that is not told here."""
_CHUNK = 1 << 20


def write_changed(stream: IO[bytes], lower: Image, out: BinaryIO, hidden: Collection[str]) -> None:
    """Write a layer.

    Args:
        stream: Tar of the upper folder, names beginning with `./`. Read to its end.
        lower: The image below.
        out: Gets the layer's tar.
        hidden: Absolute paths of what is no part of it, nor what is below.

    Raises:
        BuildError: The tar is damaged, or holds what no overlay leaves.
    """
    try:
        with (
            tarfile.open(fileobj=stream, mode="r|", errors="surrogateescape") as tar,
            tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as layer,
        ):
            changed = _Changed(lower, layer, hidden)
            for member in tar:
                changed.take(member, tar)
            changed.finish()
        while stream.read(_CHUNK):  # the padding behind the end, so that its writer does not see a closed pipe
            pass
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise BuildError(f"what a step made cannot be read: {one_line(str(error), 200)}") from error


@dataclass
class _Folder:
    """A folder that the image has already.

    Attributes:
        changed: Itself is another now.
        filled: Something directly in it came or went, so that its time is another.
        holds: Something below it is in the layer.
    """

    member: tarfile.TarInfo
    was: Node
    changed: bool
    filled: bool = False
    holds: bool = False


class _Changed:
    def __init__(self, lower: Image, layer: tarfile.TarFile, hidden: Collection[str]) -> None:
        self._lower = lower
        self._layer = layer
        self._hidden = [path.strip("/") for path in hidden]
        self._kept: dict[str, _Folder] = {}
        self._stubs: dict[str, tarfile.TarInfo] = {}
        self._names: set[str] = set()

    def take(self, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        """Take the next member of the upper folder."""
        path = _inside(member.name)
        folder, _, name = path.rpartition("/")
        if any(f"{path}/".startswith(f"{each}/") for each in self._hidden):
            return
        xattrs = {key: value for key, value in member.pax_headers.items() if key.startswith(_XATTR)}
        if any(f"{_XATTR}{each}" in xattrs for each in _ELSEWHERE):
            raise BuildError(f"a step's overlay has {one_line(path, 100)} elsewhere (redirect_dir, metacopy)")
        if member.isdir():
            opaque = any(xattrs.get(f"{_XATTR}{each}") in ("y", "x") for each in _OPAQUE_XATTR)
            self._folder(path, member, xattrs)
            if opaque:
                self._gone(path, _OPAQUE)
        elif name == _OPAQUE:
            self._gone(folder, _OPAQUE)
        elif name.startswith(_WHITEOUT):
            # fuse-overlayfs puts a whiteout of its own over each opaque mark.
            if member.isreg() and name.removeprefix(_WHITEOUT) not in ("", ".opq"):
                self._gone(folder, name)
        elif member.ischr() and (member.devmajor, member.devminor) == (0, 0):
            self._gone(folder, f"{_WHITEOUT}{name}")
        elif member.isreg() or member.issym() or member.islnk() or member.isfifo():
            self._file(path, member, xattrs, tar)

    def finish(self) -> None:
        """Write the folders that the image has already, those alone that tell something."""
        for _, folder in sorted(self._kept.items()):
            if folder.changed or folder.filled or folder.holds:
                if not folder.filled:
                    # The overlay made it anew, for what is below.
                    folder.member.mtime = folder.was.mtime
                self._layer.addfile(folder.member)

    def _folder(self, path: str, member: tarfile.TarInfo, xattrs: dict[str, str]) -> None:
        made = _member(path or ".", member, xattrs)
        made.type = tarfile.DIRTYPE
        was = self._lower.lookup(f"/{path}")
        if was is not None and was.kind == "directory":
            same = (was.mode, was.uid, was.gid) == (made.mode, made.uid, made.gid)
            self._kept[path] = _Folder(made, was, changed=not same or bool(made.pax_headers))
        elif any(f"{each}/".startswith(f"{path}/") for each in self._hidden):
            # Made for what is mounted below, unless the step put something there, too.
            self._stubs[path] = made
        else:
            self._came(path)
            self._layer.addfile(made)

    def _file(self, path: str, member: tarfile.TarInfo, xattrs: dict[str, str], tar: tarfile.TarFile) -> None:
        made = _member(path, member, xattrs)
        made.type, made.linkname = member.type, member.linkname
        if member.islnk():
            made.linkname = _inside(member.linkname)
            if made.linkname not in self._names:
                raise BuildError(f"a step's {one_line(path, 100)} is a hard link to what is not there")
        self._came(path)
        self._names.add(path)
        if member.isreg():
            made.type, made.size = tarfile.REGTYPE, member.size
            self._layer.addfile(made, tar.extractfile(member))
        else:
            self._layer.addfile(made)

    def _gone(self, folder: str, name: str) -> None:
        """A mark, where there is something that it takes away."""
        target = folder if name == _OPAQUE else posixpath.join(folder, name.removeprefix(_WHITEOUT))
        was = self._lower.lookup(f"/{target}")
        if was is None or (name == _OPAQUE and was.kind != "directory"):
            return
        path = posixpath.join(folder, name)
        if path in self._names:
            return
        self._names.add(path)
        self._came(path)
        mark = tarfile.TarInfo(path)
        mark.mode = 0o644
        self._layer.addfile(mark, io.BytesIO())

    def _came(self, path: str) -> None:
        """Note for the folders above that something is in the layer."""
        above = posixpath.dirname(path)
        if above in self._kept and path not in self._kept:
            self._kept[above].filled = True
        pending = []
        while True:
            if (folder := self._kept.get(above)) is not None:
                if folder.holds:
                    break
                folder.holds = True
            elif above in self._stubs:
                pending.append(above)
            if not above:
                break
            above = posixpath.dirname(above)
        for stub in reversed(pending):
            self._layer.addfile(self._stubs.pop(stub))


def _member(path: str, member: tarfile.TarInfo, xattrs: dict[str, str]) -> tarfile.TarInfo:
    """A member with what a layer tells of a file, and nothing of the overlay's."""
    made = tarfile.TarInfo(path)
    made.mode = member.mode & 0o7777
    made.uid, made.gid = member.uid, member.gid
    made.mtime = int(member.mtime)
    made.pax_headers = {
        key: value
        for key, value in xattrs.items()
        if key.startswith(f"{_XATTR}user.") and not key.removeprefix(_XATTR).startswith(_OURS)
    }
    return made


def _inside(name: str) -> str:
    """A member's name as a path below the root, checked; "" for the root."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or name.startswith("/"):
        raise BuildError(f"what a step made holds the name {one_line(name, 100)}")
    return os.path.join(*parts) if parts else ""  # noqa: PTH118 text of the image's, no path of ours

"""Small layers of files that are made here: root's, dated alike."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from hpcbinder.contract import EPOCH

_WHITEOUT = ".wh."


@dataclass(frozen=True)
class File:
    """A regular file."""

    content: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Folder:
    """A directory."""

    mode: int = 0o755


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Gone:
    """What a layer below has is taken away (OCI image spec, layer.md, "Whiteouts")."""


Entry = File | Folder | Link | Gone


def layer_tar(entries: Mapping[str, Entry], *, root: bool = False) -> bytes:
    """A layer's tar: the same entries give the same bytes.

    Args:
        entries: Absolute path in the image -> what is there. Folders above them that are not among them are there too,
            as folders that everybody may enter.
        root: Also the root folder itself has an entry.
    """
    whole: dict[str, Entry] = {"": Folder()} if root else {}
    for path, entry in entries.items():
        parts = path.strip("/").split("/")
        for end in range(1, len(parts)):
            whole.setdefault("/".join(parts[:end]), Folder())
        whole["/".join(parts)] = entry
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(whole, key=lambda path: path.split("/")):
            _add(tar, path, whole[path])
    return out.getvalue()


def _add(tar: tarfile.TarFile, path: str, entry: Entry) -> None:
    member = tarfile.TarInfo(path or ".")
    member.mtime = EPOCH
    content = b""
    match entry:
        case File():
            content = entry.content
            member.mode, member.size = entry.mode, len(content)
        case Folder():
            member.type, member.mode = tarfile.DIRTYPE, entry.mode
        case Link():
            member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, entry.target
        case Gone():
            folder, _, name = path.rpartition("/")
            member.name = f"{folder}/{_WHITEOUT}{name}"
    tar.addfile(member, io.BytesIO(content))

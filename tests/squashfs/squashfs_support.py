"""Layers as plain data, tars made of them by the standard library, and what a stack of them should look like."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpcbinder.squashfs import Image, Options, merge, write_layer

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where thousands of small files are synced without waiting for a disk."""

TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE,
    "character": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}


@dataclass(frozen=True)
class Item:
    """One member of a layer. `target` is that of a symbolic or hard link, `xattrs` have full names."""

    kind: str = "file"
    content: bytes = b""
    target: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_600_000_000
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()


def directory(mode: int = 0o755, **more: int) -> Item:
    return replace(Item("directory", mode=mode), **more)  # type: ignore[arg-type]


def make_tar(items: Mapping[str, Item] | Iterable[tuple[str, Item]], format: int = tarfile.PAX_FORMAT) -> bytes:
    """A layer's tar, members in the order given."""
    pairs = items.items() if isinstance(items, Mapping) else items
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as tar:
        for name, item in pairs:
            info = tarfile.TarInfo(name)
            info.type = TYPES[item.kind]
            info.size = len(item.content)
            info.linkname = item.target
            info.mode, info.uid, info.gid, info.mtime = item.mode, item.uid, item.gid, item.mtime
            info.devmajor, info.devminor = item.device
            attributes = {f"SCHILY.xattr.{name}": os.fsdecode(value) for name, value in item.xattrs}
            info.pax_headers = attributes if format == tarfile.PAX_FORMAT else {}
            tar.addfile(info, io.BytesIO(item.content))
    return buffer.getvalue()


def squash(tar: bytes, out: Path, options: Options | None = None) -> Path:
    write_layer(io.BytesIO(tar), out, options or Options())
    return out


def merged(tars: Sequence[bytes], folder: Path, options: Options | None = None) -> Path:
    """The image of a stack of layers, the lowest first."""
    layers = [squash(tar, folder / f"{n}.sqfs", options) for n, tar in enumerate(tars)]
    out = folder / "merged.sqfs"
    with out.open("w+b") as file:
        merge(layers, file)
    return out


@dataclass(frozen=True)
class Seen:
    """A file as it should be or was found; `names` are all of its names. Sizes of directories do not count."""

    kind: str
    content: bytes
    target: str
    mode: int
    uid: int
    gid: int
    mtime: int
    device: tuple[int, int]
    names: frozenset[str]
    xattrs: frozenset[tuple[str, bytes]] = frozenset()


def in_image(path: Path, offset: int = 0) -> dict[str, Seen]:
    """What our reader finds."""
    with Image.open(path, offset=offset) as image:
        nodes = dict(image.walk())
        groups: dict[int, set[str]] = {}
        for name, node in nodes.items():
            groups.setdefault(node.number, set()).add(name)
            if node.kind != "directory":
                assert image.lookup(name) == node
        for name, node in nodes.items():
            if node.kind != "directory":
                assert node.nlink == len(groups[node.number]), name
        return {
            name: Seen(
                node.kind,
                image.read(name) if node.kind == "file" else b"",
                node.target or "",
                node.mode,
                node.uid,
                node.gid,
                node.mtime,
                node.device or (0, 0),
                frozenset(groups[node.number]),
                frozenset((os.fsdecode(key), value) for key, value in node.xattrs),
            )
            for name, node in nodes.items()
        }


def in_tar(data: bytes) -> dict[str, Seen]:
    """What a tool packed into a tar, read by the standard library."""
    members: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    first: dict[str, str] = {}
    kinds = {value: key for key, value in TYPES.items()}
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as tar:
        for info in tar:
            name = os.path.normpath(info.name) if info.name not in (".", "./") else ""
            file = tar.extractfile(info) if info.isreg() else None
            if info.islnk():
                first[name] = first[os.path.normpath(info.linkname)]
            else:
                first[name] = name
                members[name] = (info, file.read() if file else b"")
    seen = {}
    for name, origin in first.items():
        info, content = members[origin]
        device = (info.devmajor, info.devminor) if info.ischr() or info.isblk() else (0, 0)
        names = frozenset(other for other, its in first.items() if its == origin)
        target = info.linkname if info.issym() else ""
        kind = kinds[info.type]
        xattrs = frozenset(
            (key.removeprefix("SCHILY.xattr."), os.fsencode(value))
            for key, value in info.pax_headers.items()
            if key.startswith(("SCHILY.xattr.user.", "SCHILY.xattr.trusted."))
        )
        seen[name] = Seen(kind, content, target, info.mode, info.uid, info.gid, int(info.mtime), device, names, xattrs)
    return seen


def union(layers: Sequence[Mapping[str, Item]]) -> dict[str, Seen]:
    """What a stack of layers should look like, worked out on a plain dict of paths (OCI image spec, layer.md)."""
    shown: dict[str, tuple[int, Item]] = {"": (0, Item("directory", mode=0o755, mtime=0))}
    serial = 0

    def remove(path: str, itself: bool = True) -> None:
        for other in list(shown):
            if other.startswith(f"{path}/" if path else "") and other != path or (itself and other == path):
                del shown[other]

    for layer in layers:
        plain = {path: item for path, item in layer.items() if ".wh." not in path}
        for path in layer:
            folder, _, name = path.rpartition("/")
            if name == ".wh..wh..opq":
                remove(folder, itself=False)
        for path in layer:
            folder, _, name = path.rpartition("/")
            if name.startswith(".wh.") and name != ".wh..wh..opq":
                remove(f"{folder}/{name[4:]}" if folder else name[4:])
        # Directories that only a member's path tells of, also one that holds just a whiteout.
        implied = {parent for path in layer for parent in parents(path)} - set(plain)
        added: dict[str, tuple[int, Item]] = {}
        for path in sorted(implied | set(plain)):
            item = plain.get(path, Item("directory", mode=0o755, mtime=0))
            if item.kind == "directory" and path in shown and shown[path][1].kind == "directory":
                if path not in implied:
                    shown[path] = (shown[path][0], item)
                continue
            remove(path)
            if item.kind != "link":
                serial += 1
                shown[path] = added[path] = (serial, item)
        for path, item in plain.items():
            if item.kind == "link":
                shown[path] = added[item.target]

    groups: dict[int, set[str]] = {}
    for path, (serial, _) in shown.items():
        groups.setdefault(serial, set()).add(path)
    return {
        path: Seen(
            item.kind,
            item.content,
            item.target,
            item.mode,
            item.uid,
            item.gid,
            item.mtime,
            item.device,
            frozenset(groups[serial]),
            frozenset((name, value) for name, value in item.xattrs if keeps(item, name)),
        )
        for path, (serial, item) in shown.items()
    }


def keeps(item: Item, xattr: str) -> bool:
    return item.kind in ("file", "directory") and xattr.startswith("user.") and not xattr.startswith("user.overlay.")


def parents(path: str) -> Iterator[str]:
    """`a/b/c` -> `a`, `a/b`."""
    parts = path.split("/")
    return ("/".join(parts[:n]) for n in range(1, len(parts)))

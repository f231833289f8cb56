"""Files to look into: trees in images, and SIFs around them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.sif import Kind, SifObject, write_sif
from hpcbinder.squashfs import Options, merge, tables_uuid, write_layer

TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE,
    "character": tarfile.CHRTYPE,
    "fifo": tarfile.FIFOTYPE,
}


@dataclass(frozen=True)
class Item:
    """One file; `target` is that of a symbolic or hard link."""

    content: bytes = b""
    kind: str = "file"
    target: str = ""
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    mtime: int = 1_600_000_000
    xattr: str = ""


def folder(mode: int = 0o755) -> Item:
    return Item(kind="directory", mode=mode)


def squashfs(path: Path, items: Mapping[str, Item], options: Options | None = None) -> Path:
    """A squashfs image."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, item in items.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = TYPES[item.kind], item.target, len(item.content)
            info.mode, info.mtime, (info.uid, info.gid) = item.mode, item.mtime, item.owner
            info.devmajor, info.devminor = (1, 3) if item.kind == "character" else (0, 0)
            if item.xattr:
                info.pax_headers = {"SCHILY.xattr.user.note": item.xattr}
            tar.addfile(info, io.BytesIO(item.content))
    layer = path.with_name(f"{path.name}.layer")
    write_layer(io.BytesIO(buffer.getvalue()), layer, options or Options())
    with path.open("w+b") as file:
        merge([layer], file)
    layer.unlink()
    return path


def sif(path: Path, image: Path, *objects: SifObject) -> Path:
    """A SIF with that squashfs in it."""
    partition = SifObject(Kind.PARTITION, "rootfs.squashfs", image.read_bytes())
    with path.open("w+b") as out:
        write_sif(
            out, [*objects, partition], architecture="amd64", timestamp=1_700_000_000, uuid=lambda: tables_uuid(image)
        )
    return path


def quiet(done: float) -> None:
    assert 0 <= done <= 1

"""Writes layers of containers/storage to its output, each as the exact tar it came in.

Run by itself, with the standard library alone, in the user namespace the storage belongs to:
`python -I -S layerreader.py GRAPHROOT DRIVER LAYER…`. Each layer is a series of pieces, each behind its length (4
bytes, big-endian), ended by a length of 0.

A layer's `LAYER.tar-split.gz` (github.com/vbatts/tar-split, tar/storage) is JSON, one object a line: of type 2 with
bytes of the tar (`payload`, base64), of type 1 with the name and size of a file whose content stands there in the tar.
Names are not trusted: no symlink is followed and nothing above the layer's folder opened.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_PIECE = 1 << 20
_LINE = 16 << 20
"""Bytes of a line, of which tar-split writes at most a few MiB: a longer one is cut, and then no JSON."""


def replay(root: str, driver: str, layer: str) -> Iterator[bytes]:
    """The layer's tar, in pieces.

    Raises:
        ValueError: The record is damaged, or names what is not there.
        OSError: A file cannot be read.
    """
    base = folder(root, driver, layer)
    top = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for entry in _entries(Path(root, f"{driver}-layers", f"{layer}.tar-split.gz")):
            kind, size = entry.get("type"), entry.get("size")
            if kind == 2:
                yield _decoded(entry.get("payload") or "")
            elif kind == 1 and size:
                if type(size) is not int or size < 0:
                    raise ValueError("its record names a file of an impossible size")
                yield from content(top, _name(entry), size)
    finally:
        os.close(top)


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rb") as lines:
        while True:
            try:
                line = lines.readline(_LINE)
                entry = json.loads(line) if line else None
            except (EOFError, RecursionError, zlib.error) as error:
                raise ValueError(f"its record is damaged: {error}") from None
            if not line:
                return
            if not isinstance(entry, dict):
                raise ValueError("its record is damaged: a line is no object")
            yield entry


def _name(entry: dict[str, Any]) -> bytes:
    if entry.get("name_raw"):
        return _decoded(entry["name_raw"])
    name = entry.get("name")
    if not isinstance(name, str):
        raise ValueError("its record has a file without a name")
    return os.fsencode(name)


def _decoded(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("its record is damaged: what should be base64 is no text")
    return base64.b64decode(text)


def folder(root: str, driver: str, layer: str) -> Path:
    """Where a layer's files lie: `overlay/ID/diff` or `vfs/dir/ID`."""
    if driver == "vfs":
        return Path(root, "vfs", "dir", layer)
    return Path(root, driver, layer, "diff")


def content(top: int, name: bytes, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes of a regular file below the open folder `top`.

    Raises:
        ValueError: There is no such file, or it is shorter.
    """
    with _open(top, name) as file:
        left = size
        while left:
            block = file.read(min(_PIECE, left))
            if not block:
                raise ValueError(f"{name!r} is shorter than its layer says")
            left -= len(block)
            yield block


def _open(top: int, name: bytes) -> BinaryIO:
    *folders, last = [part for part in name.split(b"/") if part not in (b"", b".")] or [b""]
    if b".." in folders or last in (b"..", b""):
        raise ValueError(f"{name!r} leads out of its layer")
    here = os.dup(top)
    try:
        for part in folders:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = inner
        descriptor = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{name!r} is no file")
    return os.fdopen(descriptor, "rb", buffering=0)


def main(argv: list[str]) -> int:
    """Write the layers; the exit status."""
    root, driver, *layers = argv
    out = sys.stdout.buffer
    try:
        for layer in layers:
            for block in replay(root, driver, layer):
                if block:
                    out.write(len(block).to_bytes(4, "big"))
                    out.write(block)
            out.write(bytes(4))
        out.flush()
    except (OSError, ValueError) as error:
        print(f"layer {layer}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

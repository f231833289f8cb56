"""Git's objects in one file (gitformat-pack(5)): a few files of a quota, where one for each object
would be thousands."""

# Paths are bytes here, as git has them.
# ruff: noqa: PTH105, PTH118, PTH123

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from typing import Any

_KINDS = {"commit": 1, "tree": 2, "blob": 3}
_CHUNK = 1 << 20
_SAMPLE = 64 << 10
"""Bytes of a file that tell whether the rest is worth compressing."""


class Pack:
    """A pack that is being written.

    Args:
        folder: `objects/pack`.
        hash: Name of the ids' hash.
    """

    def __init__(self, folder: bytes, hash: str) -> None:
        self._folder = folder
        self._hash = hash
        self._objects: dict[bytes, tuple[int, int]] = {}
        self._path = os.path.join(folder, b"tmp_pack")
        self._file: Any = open(self._path, "xb+")  # noqa: SIM115
        self._file.write(b"PACK" + struct.pack(">II", 2, 0))

    def __enter__(self) -> Pack:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, kind: str, content: bytes, id_: str = "") -> bool:
        """Add an object.

        Args:
            kind: commit, tree or blob.
            content: Without git's header.
            id_: What it must be called, "" for whatever it is called.

        Returns:
            False if that is another object; nothing is added then.
        """
        digest = hashlib.new(self._hash, _header(kind, len(content)) + content).digest()
        if id_ and digest.hex() != id_:
            return False
        if digest not in self._objects:
            raw = _size(kind, len(content)) + zlib.compress(content, 1)
            self._objects[digest] = (self._file.tell(), zlib.crc32(raw))
            self._file.write(raw)
        return True

    def add_file(self, path: bytes, size: int, id_: str) -> bool:
        """`add` for a file, which may be of any size."""
        if bytes.fromhex(id_) in self._objects:
            return _digest(path, size, self._hash) == bytes.fromhex(id_)
        start = self._file.tell()
        digest = hashlib.new(self._hash, _header("blob", size))
        check = self._write(_size("blob", size), 0)
        with open(path, "rb") as file:
            sample = file.read(_SAMPLE)
            file.seek(0)
            # Images, archives and the like only cost time.
            packer = zlib.compressobj(1 if len(zlib.compress(sample, 1)) < 0.9 * len(sample) or not sample else 0)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                check = self._write(packer.compress(chunk), check)
        check = self._write(packer.flush(), check)
        if digest.hexdigest() != id_:
            self._file.seek(start)
            self._file.truncate()
            return False
        self._objects[digest.digest()] = (start, check)
        return True

    def finish(self, *, partial: bool) -> None:
        """Give the pack its index and its name.

        Args:
            partial: Objects that it leads to are missing: they are the origin's to give.
        """
        self._file.seek(8)
        self._file.write(struct.pack(">I", len(self._objects)))
        self._file.seek(0)
        digest = hashlib.new(self._hash)
        while chunk := self._file.read(_CHUNK):
            digest.update(chunk)
        self._file.write(digest.digest())
        self._file.flush()
        os.fsync(self._file.fileno())
        name = os.path.join(self._folder, b"pack-" + digest.hexdigest().encode())
        with open(name + b".idx", "xb") as file:
            file.write(self._index(digest.digest()))
        os.replace(self._path, name + b".pack")
        if partial:
            with open(name + b".promisor", "xb"):
                pass
        for kind in (b".idx", b".pack"):
            os.chmod(name + kind, 0o444)  # noqa: PTH101

    def _write(self, raw: bytes, check: int) -> int:
        self._file.write(raw)
        return zlib.crc32(raw, check)

    def _index(self, digest: bytes) -> bytes:
        names = sorted(self._objects)
        counts = [0] * 256
        for name in names:
            counts[name[0]] += 1
        fan = [sum(counts[: first + 1]) for first in range(256)]
        offsets: list[int] = []
        large: list[int] = []
        for name in names:
            offset = self._objects[name][0]
            if offset < 1 << 31:
                offsets.append(offset)
            else:
                offsets.append(1 << 31 | len(large))
                large.append(offset)
        text = b"\377tOc" + struct.pack(">I256I", 2, *fan) + b"".join(names)
        text += struct.pack(f">{len(names)}I", *(self._objects[name][1] for name in names))
        text += struct.pack(f">{len(names)}I", *offsets) + struct.pack(f">{len(large)}Q", *large) + digest
        return text + hashlib.new(self._hash, text).digest()


def _header(kind: str, size: int) -> bytes:
    return b"%s %d\0" % (kind.encode(), size)


def _size(kind: str, size: int) -> bytes:
    """Type and size as a pack has them: four bits of the size, then seven in each byte."""
    byte, rest = _KINDS[kind] << 4 | size & 15, size >> 4
    raw = bytearray()
    while rest:
        raw.append(byte | 128)
        byte, rest = rest & 127, rest >> 7
    raw.append(byte)
    return bytes(raw)


def _digest(path: bytes, size: int, hash_: str) -> bytes:
    digest = hashlib.new(hash_, _header("blob", size))
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()

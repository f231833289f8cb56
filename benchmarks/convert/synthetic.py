"""Layers of made-up files: as many as wanted, of as many bytes as wanted, the same in each run."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

from benchmarks.convert.layouts import Layer, new_layer

_EPOCH = 1_700_000_000
_POOL = 8 << 20


def _text(generator: random.Random, size: int) -> bytes:
    """Words: gzip makes a third of them."""
    words = ["".join(generator.choices("etaoinshrdlucmfwypvbgk", k=generator.randint(2, 9))) for _ in range(4000)]
    found = " ".join(generator.choices(words, k=size // 5)).encode()
    return found[:size]


def _pool() -> bytes:
    """Half text, half noise, in pieces of 4 KiB: on the whole it packs about as well as programs do."""
    generator = random.Random(1)
    text, noise = _text(generator, _POOL // 2), generator.randbytes(_POOL // 2)
    pieces = [kind[at : at + 4096] for at in range(0, _POOL // 2, 4096) for kind in (text, noise)]
    return b"".join(pieces)


def _add(tar: tarfile.TarFile, name: str, data: bytes | None, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.mtime, member.mode = _EPOCH, mode
    if data is None:
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(member)
    else:
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


def small_files(folder: Path, count: int, *, top: str = "many") -> Layer:
    """A layer of files of 200 to 3800 bytes of text, no two alike, 200 in a directory.

    Args:
        folder: Where the blob is put.
        count: How many files.
        top: The directory that they are in.
    """
    generator = random.Random(count)
    pool = _text(generator, 4 << 20)
    with new_layer(folder, 1) as (tar, done):
        _add(tar, top, None)
        for number in range(count):
            if number % 200 == 0:
                _add(tar, f"{top}/d{number // 200:05}", None)
            at, size = generator.randrange(len(pool) - 4000), generator.randint(200, 3800)
            data = b"%d of %d\n" % (number, count) + pool[at : at + size]
            _add(tar, f"{top}/d{number // 200:05}/file-{number:06}.txt", data)
    return done[0]


def big_files(folder: Path, megabytes: int, *, count: int = 200) -> Layer:
    """A layer of so many bytes (10**6 each) in a fixed number of files, half of them text and half noise."""
    generator = random.Random(megabytes)
    pool = _pool()
    size = megabytes * 1_000_000 // count
    with new_layer(folder, 1) as (tar, done):
        _add(tar, "big", None)
        for number in range(count):
            at = generator.randrange(_POOL // 2)
            data = b"%d of %d\n" % (number, count)
            while len(data) < size:
                data += pool[at : at + size - len(data)]
                at = generator.randrange(_POOL // 2)
            _add(tar, f"big/file-{number:03}.bin", data)
    return done[0]

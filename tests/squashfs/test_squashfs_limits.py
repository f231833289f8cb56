"""Where the format ends, and what happens there: large offsets, many owners, twins, slow or broken sources."""

from __future__ import annotations

import errno
import io
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import threading
import zlib
from pathlib import Path

import pytest
from squashfs_support import MEMORY, Item, directory, in_image, make_tar, merged, squash

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import Image, Options, blocks, compressors, emit, merge, superblock, tree, write_layer
from hpcbinder.squashfs.output import finish_image, write_at


def test_data_may_lie_beyond_four_gigabytes(tmp_path: Path) -> None:
    """Short inodes have 32 bits for where data begin. The image is a sparse file, so that it takes no room."""
    start, block = 5 << 30, 131072
    content = random.Random(1).randbytes(block + 1000)
    raw = tree.STORED_RAW
    words = b"".join(len(part).to_bytes(3, "little") + b"\1" for part in (content[:block], content[block:]))
    root = tree.Directory(0o755, 0, 0, 0)
    root.entries[b"far"] = tree.File(0o644, 0, 0, 0, len(content), tree.Data(start, words))
    root.entries[b"tail"] = tree.File(0o644, 0, 0, 0, 500, tree.Data(fragment=0, offset=7))
    end = start + len(content)
    compressor = compressors.by_name("gzip", 6)
    table, head = emit.assemble(root, [(end, 1000 | raw)], compressor, block, end + 1000)
    path = tmp_path / "image"
    with path.open("w+b") as file:
        write_at(file.fileno(), content + content[:1000], start)
        finish_image(file.fileno(), 0, table, head)
    with Image.open(path) as image:
        assert (image.read("far"), image.read("tail")) == (content, content[7:507])
        assert image.check(lambda share: None) == []
    unpacked = subprocess.run(["unsquashfs", "-cat", str(path), "far", "tail"], check=True, stdout=subprocess.PIPE)
    assert unpacked.stdout == content + content[7:507]


def test_more_owners_than_there_is_room_for_are_refused() -> None:
    root = tree.Directory(0o755, 0, 0, 0)
    root.entries = {b"%d" % uid: tree.Special(0o644, uid, 0, 0, tree.FIFO, 0) for uid in range(65_535)}
    compressor = compressors.by_name("zstd", 1)
    _, head = emit.assemble(root, [], compressor, 131072, superblock.SIZE)
    assert head.id_count == 65_535
    root.entries[b"more"] = tree.Special(0o644, 65_535, 0, 0, tree.FIFO, 0)
    with pytest.raises(ConvertError, match="65535 different owners"):
        emit.assemble(root, [], compressor, 131072, superblock.SIZE)


def test_layers_of_another_file_system_are_copied_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = random.Random(2).randbytes(3_000_000)
    tars = [make_tar({"a": Item(content=noise), "s": Item(content=b"tail")}), make_tar({"b": Item(content=noise[9:])})]
    expected = merged(tars, tmp_path).read_bytes()
    asked = []
    copy = os.copy_file_range

    def refuse(*arguments: int) -> int:
        asked.append(arguments)
        raise OSError(errno.EXDEV, "another file system")

    def stop_early(source: int, target: int, count: int, *places: int) -> int:
        asked.append(places)
        return copy(source, target, min(count, 100_000), *places) if len(asked) < 3 else 0

    with tempfile.TemporaryDirectory(dir=MEMORY) as other, (tmp_path / "out").open("w+b") as out:
        layers = [squash(tar, Path(other, f"{n}")) for n, tar in enumerate(tars)]
        for replacement in (copy, refuse, stop_early):
            monkeypatch.setattr(os, "copy_file_range", replacement)
            assert merge(layers, out, offset=4096) == len(expected)
            assert (tmp_path / "out").read_bytes()[4096:] == expected
            out.truncate(0)
    assert len(asked) > 3


def test_what_is_copied_can_be_shared_by_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XFS and btrfs share blocks if whole ones are asked for, at the same places in their pages."""
    asked = []
    copy = os.copy_file_range

    def note(source: int, target: int, count: int, start: int, position: int) -> int:
        asked.append((count, start, position))
        return copy(source, target, count, start, position)

    source = random.Random(5)
    layers = [
        squash(make_tar({f"{n}{k}": Item(content=source.randbytes(700_001)) for k in range(3)}), tmp_path / str(n))
        for n in range(3)
    ]
    monkeypatch.setattr(os, "copy_file_range", note)
    with (tmp_path / "out").open("w+b") as out:
        merge(layers, out, offset=36864)
    shared = [count for count, start, position in asked if count > 4096 and start % 4096 == position % 4096 == 0]
    assert len(shared) == 3 and sum(shared) > 3 * (2_100_003 - 8192)
    assert sum(count for count, _, _ in asked) - sum(shared) < 3 * 4096
    assert {seen.content for seen in in_image(tmp_path / "out", 36864).values() if seen.kind == "file"} == {
        seen.content for layer in layers for seen in in_image(layer).values() if seen.content
    }


def test_twins_are_found_however_far_apart_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_AHEAD", 4 * 4096)
    noise = random.Random(3).randbytes(400_000)
    hole = noise[:8192] + bytes(40_960) + noise[:100]
    items = {"./": directory(), "one": Item(content=noise), "hole": Item(content=hole)}
    items |= {f"n{n}": Item(content=noise[n : n + 50_000]) for n in range(1, 5)}
    options = Options("zstd", 1, 4096)
    once = squash(make_tar(items), tmp_path / "once", options)
    again = items | {f"{name} again": item for name, item in items.items() if name != "./"}
    twice = squash(make_tar(again), tmp_path / "twice", options)
    with Image.open(once) as one, Image.open(twice) as two:
        assert one.info().data == two.info().data
    seen = in_image(twice)
    assert {name or "./": seen[name].content for name in seen} == {name: item.content for name, item in again.items()}


def test_a_checksum_alone_makes_no_twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zlib, "crc32", lambda data, before=0: 7)
    source = random.Random(4)
    items = {f"f{n}": Item(content=source.randbytes(300_000)) for n in range(5)}
    items["twin"] = items["f0"]
    seen = in_image(squash(make_tar(items), tmp_path / "l"))
    assert {name: seen[name].content for name in items} == {name: item.content for name, item in items.items()}
    assert (tmp_path / "l").stat().st_size < 5 * 300_000 + 8192


def test_a_twin_is_not_packed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_AHEAD", 0)
    packed: list[bytes] = []
    compress = compressors.Gzip.compress

    def counted(self: compressors.Gzip, data: compressors.Buffer) -> bytes | bytearray:
        packed.append(bytes(data))
        return compress(self, data)

    monkeypatch.setattr(compressors.Gzip, "compress", counted)
    text = random.Random(5).randbytes(300_000).hex().encode()
    other = text[:-1] + b"!"
    # In between is what is on its way: what is not written yet cannot be taken again.
    between = random.Random(6).randbytes(1_000_000).hex().encode()
    items = {"a": Item(content=text), "b": Item(content=between), "c": Item(content=text), "d": Item(content=other)}
    layer = tmp_path / "layer"
    write_layer(io.BytesIO(make_tar(items)), layer, Options("gzip", 1, 4096), jobs=1)
    for block in (text[:4096], text[300_000 // 4096 * 4096 :][:4096], other[len(other) // 4096 * 4096 :]):
        assert packed.count(block) == 1
    seen = in_image(layer)
    assert {name: seen[name].content for name in items} == {name: item.content for name, item in items.items()}


class _Source(io.RawIOBase):
    """Hands out a few bytes at a time, and fails after some of them."""

    def __init__(self, content: bytes, piece: int, end: int) -> None:
        self._content, self._piece, self._end, self._at = content, piece, end, 0

    def read(self, size: int = -1) -> bytes:
        if self._at >= self._end:
            raise OSError(errno.EIO, "the source is gone")
        begin, self._at = self._at, self._at + self._piece
        return self._content[begin : self._at]


@pytest.mark.parametrize("piece", [1 << 20, 7777])
def test_a_source_that_fails_is_heard_of_and_leaves_no_thread(tmp_path: Path, piece: int) -> None:
    tar = make_tar({f"f{n}": Item(content=random.Random(n).randbytes(900_000)) for n in range(8)})
    before = set(threading.enumerate())
    for end in (0, 1 << 20, 5 << 20):
        with pytest.raises(OSError, match="the source is gone"):
            write_layer(_Source(tar, piece, end), tmp_path / "l", Options("zstd", 1))  # type: ignore[arg-type]
        assert list(tmp_path.iterdir()) == [] and set(threading.enumerate()) == before
    whole = write_layer(_Source(tar, piece, len(tar) * 2), tmp_path / "l", Options("zstd", 1))  # type: ignore[arg-type]
    assert whole == write_layer(io.BytesIO(tar), tmp_path / "m", Options("zstd", 1))
    assert (tmp_path / "l").read_bytes() == (tmp_path / "m").read_bytes()
    # A damaged tar ends it while the source still has something to give.
    with pytest.raises(ConvertError):
        write_layer(_Source(tar[:1000] + b"!" + tar, piece, 1 << 40), tmp_path / "n", Options("zstd", 1))  # type: ignore[arg-type]
    assert set(threading.enumerate()) == before


def test_a_folder_that_becomes_a_link_leads_where_the_link_does(tmp_path: Path) -> None:
    pairs = [
        ("./", directory()),
        ("x", Item()),
        ("d", directory()),
        ("e", directory()),
        ("d/one", Item()),
        ("d", Item("symlink", target="e")),
        ("d/two", Item()),
        ("d", directory()),
        ("d/three", Item()),
    ]
    seen = in_image(squash(make_tar(pairs), tmp_path / "l"))
    assert set(seen) == {"", "x", "d", "e", "e/two", "d/three"}
    for name in ("/y", "d/..", "d/../y", "d//"):
        kind = "directory" if name.endswith("/") else "file"
        try:
            found = in_image(squash(make_tar([*pairs, (name, Item(kind))]), tmp_path / "m"))
        except ConvertError as error:
            assert "are refused" in error.message and name != "d//"
        else:
            assert name == "d//" and set(found) == set(seen)


def test_memory_grows_by_less_than_a_kilobyte_a_file(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from hpcbinder.squashfs import Options, blocks, merge, stream, write_layer

# What is read ahead has its own bound, and the smaller tar is smaller than that.
blocks._AHEAD, stream._AHEAD = 1 << 20, 1

def peak():
    # Not getrusage: that counts what the parent had before exec.
    return next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]

path = Path(sys.argv[1])
with path.with_suffix(".tar").open("rb") as tar:
    write_layer(tar, path, Options("zstd", 1))
print(peak())
with path.with_suffix(".merged").open("w+b") as out:
    merge([path], out)
print(peak())
"""

    def peaks(count: int) -> list[int]:
        with tarfile.open(tmp_path / "l.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(count):
                info = tarfile.TarInfo(f"folder{number // 100:04}/module_{number:06}.py")
                content = b"content of file %d\n" % number * 20
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        command = [sys.executable, "-c", program, str(tmp_path / "l")]
        return [1024 * int(line) for line in subprocess.run(command, check=True, capture_output=True).stdout.split()]

    few, many = 2_000, 20_000
    for one, other in zip(peaks(few), peaks(many), strict=True):
        assert 0 < other - one < 1024 * (many - few)

"""Images nobody should trust: an error in bounded time and memory, never anything else."""

from __future__ import annotations

import io
import os
import random
import re
import struct
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from squashfs_support import Item, directory, in_image, make_tar, merged, squash

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import Image, Options, compressors, emit, merge, metadata, notes, superblock, tables, tar, tree
from hpcbinder.squashfs.compressors import Compressor, Gzip, Lz4, Lzo, Xz, Zstd
from hpcbinder.squashfs.ingest import new_directory
from hpcbinder.squashfs.output import finish_image

COMPRESSORS = ("gzip", "zstd", "xz", "lz4")
FIELDS = {name: n for n, name in enumerate(superblock.Superblock._fields)}


def sample(path: Path, options: Options | None = None) -> bytes:
    notes = (("user.a", b"1"), ("user.b", bytes(range(200))))
    items = {f"d{n % 3}/f{n}": Item(content=random.Random(n).randbytes(n * 700) + bytes(9000)) for n in range(12)}
    items |= {"d0/l": Item("symlink", target="f0"), "d1/h": Item("link", target="d1/f1"), "p": Item("fifo")}
    items |= {"c": Item("character", device=(1, 3)), "e": directory(uid=9)}
    items |= {"s": Item(content=b"in a fragment", xattrs=notes), "t": Item(content=random.Random(99).randbytes(6000))}
    items |= {"x": Item(content=b"more", xattrs=notes[:1]), "d2": replace(directory(), xattrs=notes)}
    return squash(make_tar(items), path, options or Options(block_size=4096)).read_bytes()


def exercise(path: Path) -> None:
    """All that can be done with an image."""
    with Image.open(path) as image:
        for name, node in image.walk():
            if node.kind == "file":
                image.read(name)
            elif node.kind == "directory":
                image.listdir(name)
            image.lookup(name, follow=True)
        image.check(lambda done: None)
        nodes = dict(image.walk())
        listed = {f"{path}/{n}".lstrip("/") for path, inside, others in image.folders() for n in (*inside, *others)}
        assert listed == nodes.keys() - {""}
        for node in nodes.values():
            if node.kind == "file":
                image.same_content(node, image, nodes["s"] if "s" in nodes and nodes["s"].kind == "file" else node)
    with (path.parent / "merged").open("w+b") as out:
        merge([path, path], out)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("sample")
    return {name: sample(folder / name, Options(name, None, 4096)) for name in COMPRESSORS}


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, Path("/dev/zero")):
        with pytest.raises(ConvertError, match="not a file"):
            Image.open(path)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_a_cut_off_image_is_an_error(tmp_path: Path, images: dict[str, bytes], compressor: str) -> None:
    data = images[compressor]
    used = superblock.parse(data, len(data)).bytes_used
    for end in [*range(0, 100, 7), *range(100, used, used // 40), used - 1]:
        (tmp_path / "i").write_bytes(data[:end])
        with pytest.raises(ConvertError):
            exercise(tmp_path / "i")


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_flipped_bits_give_an_error_or_an_image(tmp_path: Path, images: dict[str, bytes], compressor: str) -> None:
    source = random.Random(5)
    data = images[compressor]
    start = superblock.parse(data, len(data)).inode_table
    errors = 0
    for n in range(300):
        damaged = bytearray(data)
        for _ in range(source.randint(1, 4)):
            place = source.randrange(96) if n % 3 == 0 else source.randrange(start, len(data))
            damaged[place] ^= 1 << source.randrange(8)
        (tmp_path / "i").write_bytes(damaged)
        try:
            exercise(tmp_path / "i")
        except ConvertError:
            errors += 1
    assert errors > 100


class Stored(Gzip):
    """Leaves metadata as they are, so that a test can change a record."""

    def compress(self, data: bytes) -> bytes:
        return data


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[bytearray], None]], Path]:
    """Makes an image with unpacked metadata and one change in it."""
    monkeypatch.setattr(compressors, "by_name", lambda name, level: Stored(6))

    def build(change: Callable[[bytearray], None]) -> Path:
        data = bytearray(sample(tmp_path / "plain"))
        change(data)
        (tmp_path / "plain").write_bytes(data)
        return tmp_path / "plain"

    return build


def set_field(data: bytearray, name: str, value: int) -> None:
    block = superblock.parse(bytes(data), len(data))
    data[:96] = block._replace(**{name: value}).pack()


def inode(data: bytearray, type_: int, occurrence: int = 0) -> int:
    """Where in the file the record of an inode of that type begins (the table is one block in these samples)."""
    block = superblock.parse(bytes(data), len(data))
    entries = []
    places = block.export_table
    (first,) = struct.unpack_from("<Q", data, places)
    for n in range(block.inode_count):
        (reference,) = struct.unpack_from("<Q", data, first + 2 + 8 * n)
        assert reference >> 16 == 0
        entries.append(block.inode_table + 2 + (reference & 0xFFFF))
    found: list[int] = [place for place in entries if struct.unpack_from("<H", data, place)[0] == type_]
    return found[occurrence]


def test_the_unchanged_image_is_read(plain: Callable[[Callable[[bytearray], None]], Path]) -> None:
    exercise(plain(lambda data: None))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("magic", 1),
        ("major", 3),
        ("block_size", 0),
        ("block_log", 60),
        ("compressor", 3),
        ("fragment_count", 0xFFFFFFFF),
        ("id_count", 0xFFFF),
        ("id_count", 0),
        ("inode_count", 0),
        ("root", 0xFFFFFFFFFFFFFFFF),
        ("bytes_used", 1 << 63),
        ("id_table", 1 << 63),
        ("id_table", 96),
        ("inode_table", 0),
        ("inode_table", 1 << 63),
        ("directory_table", 1),
        ("fragment_table", 0xFFFFFFFFFFFFFFFF),
        ("export_table", 97),
        ("xattr_table", 97),
        ("xattr_table", 1 << 62),
    ],
)
def test_an_impossible_superblock_is_an_error(
    plain: Callable[[Callable[[bytearray], None]], Path], field: str, value: int
) -> None:
    with pytest.raises(ConvertError):
        exercise(plain(lambda data: set_field(data, field, value)))


@pytest.mark.parametrize(
    ("type_", "at", "layout", "value"),
    [
        (2, 0, "<H", 77),  # no such type
        (2, 4, "<H", 500),  # owner outside the id table
        (2, 16, "<I", 0xFFFFFFF0),  # data outside
        (2, 16, "<I", 3),  # data in the superblock
        (2, 20, "<I", 5000),  # no such fragment
        (2, 28, "<I", 0xFFFFFFFF),  # more blocks than the table holds
        (2, 32, "<I", 0x00FFFFFF),  # a block of 16 MiB
        (2, 32, "<I", 0xFF000001),  # unknown bits
        (9, 24, "<Q", 1 << 62),  # 4 EiB
        (1, 16, "<I", 4000),  # listing in no block
        (1, 24, "<H", 60000),  # listing longer than the table
        (1, 26, "<H", 9000),  # offset outside its block
        (3, 20, "<I", 0xFFFFFFFF),  # a link of 4 GiB
        (3, 20, "<I", 0),
    ],
)
def test_an_impossible_inode_is_an_error(
    plain: Callable[[Callable[[bytearray], None]], Path], type_: int, at: int, layout: str, value: int
) -> None:
    def change(data: bytearray) -> None:
        # The longest file: one with blocks. Any directory with a listing.
        struct.pack_into(layout, data, inode(data, type_, -1 if type_ in (1, 2) else 0) + at, value)

    with pytest.raises(ConvertError):
        exercise(plain(change))


def test_changed_bytes_in_the_tables_give_an_error_or_an_image(
    plain: Callable[[Callable[[bytearray], None]], Path],
) -> None:
    image = plain(lambda data: None)
    data = image.read_bytes()
    start = superblock.parse(data, len(data)).inode_table
    source = random.Random(6)
    errors = 0
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(source.randint(1, 3)):
            damaged[source.randrange(start, len(data))] = source.choice([0, 1, 0x7F, 0x80, 0xFF])
        image.write_bytes(damaged)
        try:
            exercise(image)
        except ConvertError:
            errors += 1
    assert 50 < errors < 400


def test_directories_that_share_a_long_listing_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 3000 directories, each with the same 3000 names: nine million entries in 200 KB.
    monkeypatch.setattr(compressors, "by_name", lambda name, level: Stored(6))
    items = {f"a/{n}": Item("fifo") for n in range(3000)} | {f"z{n}": directory() for n in range(3000)}
    data = bytearray(squash(make_tar(items), tmp_path / "bomb").read_bytes())
    block = superblock.parse(bytes(data), len(data))
    table = metadata.unpack(bytes(data[block.inode_table : block.directory_table]), Gzip(6), 1 << 24)
    (first,) = struct.unpack_from("<Q", data, block.export_table)
    long = None
    for number in range(block.inode_count - 1):
        (reference,) = struct.unpack_from("<Q", data, first + 2 + number % 1024 * 8 + number // 1024 * 8194)
        # Headers lie in front of each block, so a record that spans two is left as it is.
        place = block.inode_table + (reference >> 16) + 2 + (reference & 0xFFFF)
        record = table.data[table.position(reference >> 16, reference & 0xFFFF) :][:40]
        kind = struct.unpack_from("<H", record)[0]
        if kind == 8:
            size, start, offset = struct.unpack_from("<4xII6xH", record, 16)
            long = struct.pack("<IIHH", start, 2, min(size, 65535), offset)
        elif kind == 1 and long is not None and (reference & 0xFFFF) < 8192 - 32:
            data[place + 16 : place + 28] = long
    assert long is not None
    (tmp_path / "bomb").write_bytes(data)
    with pytest.raises(ConvertError, match="tables overlap"):
        exercise(tmp_path / "bomb")
    with Image.open(tmp_path / "bomb") as image, pytest.raises(ConvertError, match="tables overlap"):
        list(image.folders())


def test_a_directory_in_itself_is_an_error(plain: Callable[[Callable[[bytearray], None]], Path]) -> None:
    def change(data: bytearray) -> None:
        # d0 shows the root's listing: a tree without end.
        root, below = inode(data, 1, -1), inode(data, 1, 0)
        data[below + 16 : below + 28] = data[root + 16 : root + 28]

    path = plain(change)
    with pytest.raises(ConvertError, match="two names"):
        exercise(path)
    with Image.open(path) as image, pytest.raises(ConvertError, match="inodes differ"):
        list(image.folders())


@pytest.mark.parametrize("name", [b"/", b"\0", b".", b"p"])
def test_an_impossible_name_is_an_error(plain: Callable[[Callable[[bytearray], None]], Path], name: bytes) -> None:
    def change(data: bytearray) -> None:
        # The entry of `c` in the root, whose sibling `p` there is too.
        block = superblock.parse(bytes(data), len(data))
        place = data.index(b"\x00\x00c", block.directory_table)
        data[place + 2 : place + 3] = name

    with pytest.raises(ConvertError):
        exercise(plain(change))


def test_a_fragment_outside_the_data_is_an_error(plain: Callable[[Callable[[bytearray], None]], Path]) -> None:
    def change(data: bytearray) -> None:
        block = superblock.parse(bytes(data), len(data))
        place = tables.first_block(lambda at, n: bytes(data[at : at + n]), block.fragment_table)
        struct.pack_into("<Q", data, place + 2, block.inode_table)

    with pytest.raises(ConvertError, match="fragment"):
        exercise(plain(change))


@pytest.mark.parametrize("compressor", [Gzip(6), Zstd(3), Xz(6), Lz4(1), Lz4(9)], ids=lambda c: type(c).__name__)
def test_a_block_cannot_unpack_to_more_than_its_limit(compressor: Compressor) -> None:
    bomb = bytes(compressor.compress(bytes(50_000_000)))
    with pytest.raises(ConvertError):
        compressor.decompress(bomb, 8192)
    with pytest.raises(ConvertError):
        compressor.decompress(bomb[:-5], 50_000_000)
    assert compressor.decompress(bytes(compressor.compress(b"x" * 8192)), 8192) == b"x" * 8192


@pytest.mark.rig
def test_lzo_is_read_within_its_limit_and_survives_noise(tmp_path: Path) -> None:
    """Only mksquashfs writes it; what is damaged here is the C library's to withstand."""
    (tmp_path / "zeros").write_bytes(bytes(range(256)) * 100)
    command = [
        "mksquashfs",
        str(tmp_path / "zeros"),
        str(tmp_path / "image"),
        "-comp",
        "lzo",
        "-quiet",
        "-no-fragments",
    ]
    subprocess.run(command, check=True)
    data = (tmp_path / "image").read_bytes()
    with Image.open(tmp_path / "image") as image:
        assert image.read("zeros") == bytes(range(256)) * 100
        (node,) = (node for path, node in image.walk() if path)
        start = image.place(node)[0]
    compressor, packed = Lzo(), data[start : start + 2000]
    with pytest.raises(ConvertError):
        compressor.decompress(packed, 8192)
    source = random.Random(3)
    for _ in range(2000):
        damaged = bytearray(packed)
        for _ in range(source.randint(1, 5)):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        try:
            assert len(compressor.decompress(bytes(damaged[: source.randint(1, 2000)]), 131072)) <= 131072
        except ConvertError:
            pass


def xattr_table(data: bytearray) -> tuple[int, int, int]:
    """Where in the file keys and values, sets, and the table's header begin (one block each in these samples)."""
    (header,) = struct.unpack_from("<Q", data, 56)
    pairs, _, _, sets = struct.unpack_from("<QIIQ", data, header)
    return pairs + 2, sets + 2, header


@pytest.mark.parametrize(
    ("part", "at", "layout", "value"),
    [
        (0, 0, "<H", 7),  # no such prefix
        (0, 2, "<H", 60000),  # a name longer than the table
        (0, 2, "<H", 0),
        (0, 4, "<B", 0),  # NUL in a name
        (0, 5, "<I", 0xFFFFFFFF),  # a value of 4 GiB
        (0, 0, "<H", 0x100),  # a value elsewhere, and no reference there
        (1, 0, "<Q", 1 << 40),  # outside the table
        (1, 8, "<I", 0xFFFFFFFF),  # four billion pairs
        (2, 0, "<Q", 1 << 62),
        (2, 8, "<I", 0xFFFFFFFF),
        (2, 8, "<I", 1),  # inodes have sets that are not there
        (2, 16, "<Q", 96),
    ],
)
def test_impossible_attributes_are_an_error(
    plain: Callable[[Callable[[bytearray], None]], Path], part: int, at: int, layout: str, value: int
) -> None:
    def change(data: bytearray) -> None:
        struct.pack_into(layout, data, xattr_table(data)[part] + at, value)

    with pytest.raises(ConvertError):
        exercise(plain(change))


def test_sets_that_share_a_long_list_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 500 sets that all are the first one, of 60 KB: 30 MB to read in a table of 80 KB.
    monkeypatch.setattr(compressors, "by_name", lambda name, level: Stored(6))
    items = {"a": Item(xattrs=(("user.long", b"v" * 60_000),))}
    items |= {f"f{n}": Item(xattrs=(("user.n", b"%d" % n),)) for n in range(500)}
    data = bytearray(squash(make_tar(items), tmp_path / "bomb").read_bytes())
    _, sets, _ = xattr_table(data)
    for n in range(500):
        data[sets + 16 * n : sets + 16 * n + 16] = data[sets : sets + 16]
    (tmp_path / "bomb").write_bytes(data)
    with pytest.raises(ConvertError, match="extended attributes overlap"):
        exercise(tmp_path / "bomb")


def test_a_tars_attributes_may_be_odd(tmp_path: Path) -> None:
    odd = (("user.", b"x"), ("user." + "n" * 300, b"x"), ("user.big", b"x" * 70_000), ("user.ok", b"yes"), ("", b"x"))
    seen = in_image(squash(make_tar({"f": Item(xattrs=odd)}), tmp_path / "l"))
    assert seen["f"].xattrs == {("user.ok", b"yes")}


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("user.%6fk%3D", "AP8", {("user.ok=", b"\0\xff")}),
        ("user.ok", "AP8=", {("user.ok", b"\0\xff")}),
        ("security.capability", "AP8", set()),
        ("user.ok", "@@@", None),
        ("user.ok", "A", None),
    ],
)
def test_attributes_of_libarchive_are_decoded(
    tmp_path: Path, key: str, value: str, found: set[tuple[str, bytes]] | None
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("f")
        info.pax_headers = {f"LIBARCHIVE.xattr.{key}": value}
        tar.addfile(info)
    if found is None:
        with pytest.raises(ConvertError, match="'f'.*no base64"):
            squash(buffer.getvalue(), tmp_path / "l")
    else:
        assert in_image(squash(buffer.getvalue(), tmp_path / "l"))["f"].xattrs == found


def test_xz_is_read_within_its_limit() -> None:
    import lzma

    packed = lzma.compress(bytes(9000), check=lzma.CHECK_CRC32)
    assert Xz(6).decompress(packed, 9000) == bytes(9000)
    for damaged, limit in ((packed, 8192), (packed[:-1], 9000), (b"x" + packed, 9000)):
        with pytest.raises(ConvertError):
            Xz(6).decompress(damaged, limit)


def test_a_layers_list_of_hard_links_is_checked_too(tmp_path: Path) -> None:
    good = make_tar({"x": Item("link", target="../../etc")})
    with pytest.raises(ConvertError):
        merged([good], tmp_path)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match="missing.*No such file"):
        Image.open(tmp_path / "missing")
    (tmp_path / "text").write_bytes(b"#!/bin/sh\n" * 1000)
    with pytest.raises(ConvertError, match="text: not a squashfs image"):
        Image.open(tmp_path / "text")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(ConvertError):
            Image.open(tmp_path / "text")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_chain_of_hard_links_is_followed_once(tmp_path: Path) -> None:
    """Each leads to the next member, so that none is known when it is met: 10,000 links, not their square."""
    count = 10_000
    chain = [(f"l{n}", Item("link", target=f"l{n + 1}")) for n in range(count)]
    with Image.open(squash(make_tar([*chain, (f"l{count}", Item(content=b"end"))]), tmp_path / "l")) as image:
        node = image.lookup("l0")
        assert node is not None and (node.kind, node.nlink, node.size) == ("file", count + 1, 3)
    with pytest.raises(ConvertError, match=f"leads to 'l{count}'"):
        merged([make_tar(chain)], tmp_path)


def test_members_behind_long_chains_of_symbolic_links_are_given_up(tmp_path: Path) -> None:
    """2000 members, each of which forty links of 4 KB lead to: a hundred million steps in a tar of 1 MB."""
    around = "d/../" * 800
    links = [(f"s{n}", Item("symlink", target=f"{around}s{n + 1}")) for n in range(39)]
    links.append(("s39", Item("symlink", target=f"{around}d")))
    pairs = [("d", directory()), *links, *((f"s0/{n}/x", Item("fifo")) for n in range(2000))]
    with pytest.raises(ConvertError, match="behind too many symbolic links"):
        squash(make_tar(pairs), tmp_path / "l")


def test_a_hole_of_terabytes_costs_what_its_tar_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member = tarfile.TarInfo("var/log/lastlog")
    member.size = 10
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    size = 1 << 39
    for place, number in ((386, 0), (398, 5), (410, size - 5), (422, 5), (483, size)):
        header[place : place + 12] = b"\x80" + number.to_bytes(11, "big")
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    asked: list[int] = []
    read = tar.TarReader.read
    monkeypatch.setattr(tar.TarReader, "read", lambda self, length: asked.append(length) or read(self, length))
    layer = squash(bytes(header) + b"firstlast!".ljust(512, b"\0") + bytes(1024), tmp_path / "l", Options())
    assert len(asked) == 2
    with Image.open(layer) as image:
        node = dict(image.walk())["var/log/lastlog"]
        first, hole, last = image.pieces(node)
        assert node.size == size and hole == size - 2 * Options().block_size
        assert isinstance(first, bytes) and isinstance(last, bytes)
        assert first.rstrip(b"\0") == b"first" and last.lstrip(b"\0") == b"last!"


def test_paths_that_fill_the_memory_are_an_error(tmp_path: Path) -> None:
    """20,000 names in a folder whose own path has 59 KB: 1.2 GB of paths in an image of 100 KB."""
    root = here = new_directory()
    for _ in range(230):
        below = here.entries[b"x" * 255] = new_directory()
        here = below
    for number in range(20_000):
        here.entries[b"%d" % number] = tree.Special(0o644, 0, 0, 0, tree.FIFO, 0)
    with (tmp_path / "image").open("w+b") as file:
        start = emit.begin(file.fileno(), 0, Gzip(6))
        finish_image(file.fileno(), 0, *emit.assemble(root, [], Gzip(6), 4096, start))
    with Image.open(tmp_path / "image") as image:
        with pytest.raises(ConvertError, match="paths of more than 1024 MiB"):
            for _ in image.walk():
                pass
        (problem,) = image.check(lambda done: None)
        assert "paths of more than" in problem


def test_a_value_that_many_names_refer_to_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One value of 60 KB behind 8000 names: half a gigabyte to write for whoever merges such a layer."""
    monkeypatch.setattr(compressors, "by_name", lambda name, level: Stored(6))
    value = 60_000
    items = {f"f{n}": Item(xattrs=((f"user.{n:04}", b"8bytes!!"),)) for n in range(8000)}
    items = {"a": Item(xattrs=(("user.long", b"v" * value),))} | items
    data = squash(make_tar(items), tmp_path / "bomb").read_bytes()
    pair = re.compile(b"\0\0\4\0([0-9]{4})\x08\0\0\08bytes!!")
    elsewhere = struct.pack("<IQ", 8, 8)
    damaged = pair.sub(lambda found: b"\0\1\4\0" + found[1] + elsewhere, data)
    assert damaged.count(b"\0\1\4\0") > 7000
    (tmp_path / "bomb").write_bytes(damaged)
    with pytest.raises(ConvertError, match="extended attributes are too long"):
        exercise(tmp_path / "bomb")


def test_a_hard_link_note_with_an_impossible_name_is_an_error(tmp_path: Path) -> None:
    """Only a layer that is not ours has it: our own writer would make an image of it that nobody can read."""
    good = squash(make_tar({"a": Item(content=b"x")}), tmp_path / "good")
    for name in ("n" * 256, "d/" + "n" * 70_000):
        note = Item(content=b"\0".join([name.encode(), b"a"]))
        with mock.patch.object(notes, "NAMES", frozenset()):
            bad = squash(make_tar({os.fsdecode(notes.LINKS): note}), tmp_path / "bad")
        with pytest.raises(ConvertError), (tmp_path / "out").open("w+b") as out:
            merge([good, bad], out)

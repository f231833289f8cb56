"""One layer's tar squashed: every kind of member, exact identity, bounded memory."""

from __future__ import annotations

import hashlib
import io
import os
import random
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from squashfs_support import MEMORY, Item, directory, in_image, make_tar, merged, squash, union

from hpcbinder.errors import ConvertError, UsageError
from hpcbinder.squashfs import Image, Options, compressors, write_layer
from hpcbinder.squashfs.archive import Archive
from hpcbinder.squashfs.output import PieceWriter
from hpcbinder.squashfs.tree import File

EVERYTHING = {
    "./": directory(0o755, mtime=3),
    "dir": directory(0o2775, uid=1000, gid=100),
    "dir/empty": Item(),
    "dir/small": Item(content=b"hello\n", mode=0o4755),
    "dir/blocks": Item(content=bytes(range(256)) * 2000),
    "dir/hole": Item(content=b"begin" + bytes(600_000) + b"end"),
    "dir/all-hole": Item(content=bytes(262_144)),
    "link": Item("symlink", target="dir/small", mode=0o777),
    "hard": Item("link", target="dir/small"),
    "console": Item("character", device=(5, 1), mode=0o600),
    "loop": Item("block", device=(7, 1000), mode=0o660),
    "pipe": Item("fifo"),
    "not utf-8 \udcff\udc80": Item(content=b"x", uid=4_000_000_000, mtime=4_000_000_000),
    "dir/.wh.removed": Item(),
    "n" * 255: Item("symlink", target="t" * 4095, mode=0o777),
}


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("options", [Options(), Options("zstd"), Options("gzip", 1, 4096)])
def test_everything_a_layer_can_hold_is_found_again(tmp_path: Path, tar_format: int, options: Options) -> None:
    layer = squash(make_tar(EVERYTHING, tar_format), tmp_path / "layer", options)
    expected = union([{name: item for name, item in EVERYTHING.items() if name not in ("./", "dir/.wh.removed")}])
    seen = in_image(layer)
    assert seen.pop(".wh..wh.tails").content  # a note for merge
    assert (seen.pop("").mtime, seen.pop("dir/.wh.removed").kind) == (3, "file")
    expected.pop("")
    assert {**seen, "dir/small": None, "hard": None} == {**expected, "dir/small": None, "hard": None}
    assert seen["hard"] == seen["dir/small"] and seen["hard"].names == {"hard", "dir/small"}
    assert seen["hard"].content == b"hello\n" and seen["hard"].mode == 0o4755


def test_the_diff_id_is_of_every_byte_of_the_stream(tmp_path: Path) -> None:
    tar = make_tar({"x": Item(content=b"1")}) + b"after the end" * 100_000
    stream = io.BytesIO(tar)
    assert write_layer(stream, tmp_path / "l", Options()) == f"sha256:{hashlib.sha256(tar).hexdigest()}"
    assert stream.read() == b""


@pytest.mark.parametrize("tar", [b"", bytes(1024)])
def test_an_empty_layer_is_an_image(tmp_path: Path, tar: bytes) -> None:
    assert list(in_image(merged([tar], tmp_path))) == [""]


def test_the_bytes_do_not_depend_on_the_number_of_jobs(tmp_path: Path) -> None:
    source = random.Random(1)
    items = {f"f{n}": Item(content=source.randbytes(n * 3000) * 3) for n in range(100)}
    items |= {f"twin{n}": items[f"f{n}"] for n in range(0, 100, 7)}
    tar = make_tar(items)
    images = set()
    for jobs in (1, 2, 7):
        write_layer(io.BytesIO(tar), tmp_path / "l", Options(), jobs=jobs)
        images.add((tmp_path / "l").read_bytes())
    assert len(images) == 1


class Stored(compressors.Gzip):
    """Leaves all as it is, so that an image's bytes are of our making alone."""

    def compress(self, data: bytes) -> bytes:
        return data


def test_golden_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change here means that layers squashed before do not give the images they gave: think of the cache's key."""
    monkeypatch.setattr(compressors, "by_name", lambda name, level: Stored(6))
    monkeypatch.setattr(compressors, "by_id", lambda number: Stored(6))
    lower = {**EVERYTHING, "dir/blocks": Item(content=random.Random(2).randbytes(300_000))}
    image = merged([make_tar(lower), make_tar({"dir/.wh.hole": Item(), "new/x": Item(content=b"x")})], tmp_path)
    golden = {
        "0.sqfs": "b607a49f14b0f87c6b988b50fd186eb7b2c94a7a2e1339fd06843e5531e5798a",
        "merged.sqfs": "e05cd34c8141d22e941071d0c83dcba9144ff75f7fdf890c3a265374944cff17",
    }
    assert {name: hashlib.sha256((image.parent / name).read_bytes()).hexdigest() for name in golden} == golden


def letters(size: int, seed: int) -> bytes:
    """What each level packs in its own way."""
    return bytes(random.Random(seed).choices(b"abcd", k=size))


def test_files_of_no_common_kind_are_packed_at_a_lower_level(tmp_path: Path) -> None:
    deflate = pytest.importorskip("deflate")
    contents = {name: letters(100_000 + 50_000 * (n % 2), n) for n, name in enumerate(("a.py", "b.py", "c", "d.so.6"))}
    tar = make_tar({name: Item(content=content) for name, content in contents.items()})
    for options, levels in ((Options(), (6, 5)), (Options("gzip", 6), (6, 5)), (Options("gzip", 9), (9, 9))):
        assert options.levels == levels
        image = squash(tar, tmp_path / "l", options).read_bytes()
        for name, content in contents.items():
            found = [level for level in range(1, 10) if deflate.zlib_compress(content[:131_072], level) in image]
            assert found == [levels[not name.endswith(".py")]], (options, name)


def test_a_twin_is_packed_as_the_first_one_is_whatever_its_name(tmp_path: Path) -> None:
    twin = Item(content=letters(400_000, 1))
    # With one thread the first one is written when the second one comes, with many it is not.
    between = {f"{n}.gz": Item(content=random.Random(n).randbytes(1_000_000)) for n in range(8)}
    tar = make_tar({"x.py": twin, **between, "x": twin})
    images = set()
    for jobs in (1, 32):
        write_layer(io.BytesIO(tar), tmp_path / "l", Options(), jobs=jobs)
        images.add((tmp_path / "l").read_bytes())
    with Archive(tmp_path / "l") as archive:
        entries = archive.load().entries
        one, other = entries[b"x.py"], entries[b"x"]
        assert isinstance(one, File) and isinstance(other, File)
        assert one.data.start == other.data.start and archive.content(other) == twin.content
    assert len(images) == 1


def test_options_that_give_other_bytes_have_another_key() -> None:
    keys = ["gzip6-5-131072", "gzip9-131072", "zstd3-131072", "gzip6-5-4096"]
    assert [Options(*each).key for each in ((), ("gzip", 9), ("zstd",), ("gzip", 6, 4096))] == keys


@given(st.lists(st.tuples(st.integers(0, 700_000), st.booleans(), st.booleans()), max_size=12))
@settings(max_examples=50)
def test_what_is_taken_back_is_written_over(steps: list[tuple[int, bool, bool]]) -> None:
    expected = b"head"
    with tempfile.TemporaryFile(dir=MEMORY) as file:
        file.write(expected)
        file.flush()
        out = PieceWriter(file.fileno(), 4)
        for number, (size, flush, back) in enumerate(steps):
            data = bytes([number + 1]) * size
            out.write(data)
            if flush:
                out.flush()
            if back:
                out.back_to(out.position - size)
            else:
                expected += data
            assert out.position == len(expected)
        out.flush()
        file.seek(0)
        assert file.read(len(expected)) == expected


def test_short_files_of_a_kind_share_blocks(tmp_path: Path) -> None:
    names = [f"{n}{suffix}" for n in range(200) for suffix in (".py", ".pyc", "")]
    layer = squash(make_tar({name: Item(content=name.encode() * 400) for name in names}), tmp_path / "l")
    archive = Archive(layer)
    with archive:
        root = archive.load()
        blocks: dict[str, set[int]] = {}
        for name in names:
            inode = root.entries[name.encode()]
            assert isinstance(inode, File) and archive.content(inode) == name.encode() * 400
            blocks.setdefault(name.lstrip("0123456789"), set()).add(inode.data.fragment)
    assert all(len(those) > 1 for those in blocks.values())
    assert not (blocks[".py"] & blocks[".pyc"] or blocks[".py"] & blocks[""] or blocks[".pyc"] & blocks[""])


def test_the_same_content_is_stored_once(tmp_path: Path) -> None:
    noise = random.Random(3).randbytes(1_000_000)
    once = squash(make_tar({"a": Item(content=noise), "s": Item(content=noise[:100])}), tmp_path / "once")
    items = {"a": Item(content=noise), "s": Item(content=noise[:100]), "b": Item(content=noise, mode=0o755)}
    items |= {"t": Item(content=noise[:100]), "c": Item(content=noise[:-1] + b"!")}
    twice = squash(make_tar(items), tmp_path / "twice")
    assert 990_000 < twice.stat().st_size - once.stat().st_size < 1_010_000
    seen = in_image(twice)
    assert seen["b"].content == noise and seen["t"].content == noise[:100] and seen["c"].content == noise[:-1] + b"!"


def test_the_last_member_of_a_name_counts(tmp_path: Path) -> None:
    pairs = [
        ("d/x", Item(content=b"1")),
        ("f", Item(content=b"first")),
        ("d", directory(0o700)),
        ("f", Item(content=b"last")),
        ("e/y", Item()),
        ("e", Item(content=b"a file now")),
    ]
    seen = in_image(squash(make_tar(pairs), tmp_path / "l"))
    assert seen["f"].content == b"last" and seen["d"].mode == 0o700 and "d/x" in seen
    assert seen["e"].kind == "file" and "e/y" not in seen


def test_hard_links_may_come_before_what_they_lead_to(tmp_path: Path) -> None:
    pairs = [
        ("c", Item("link", target="b")),
        ("b", Item("link", target="./d/a")),
        ("/abs"[1:], Item("link", target="/d/a")),
        ("d/a", Item(content=b"x")),
    ]
    assert in_image(squash(make_tar(pairs), tmp_path / "l"))["c"].names == {"abs", "b", "c", "d/a"}


def test_a_symbolic_link_in_a_members_path_stays_inside_the_layer(tmp_path: Path) -> None:
    pairs = [
        ("lib", Item("symlink", target="usr/lib")),
        ("out", Item("symlink", target="../../../etc")),
        ("lib/x", Item(content=b"1")),
        ("out/y", Item(content=b"2")),
        ("usr/lib", directory(0o711)),
    ]
    seen = in_image(squash(make_tar(pairs), tmp_path / "l"))
    assert seen["usr/lib/x"].content == b"1" and seen["etc/y"].content == b"2" and seen["usr/lib"].mode == 0o711


@pytest.mark.parametrize("tar_format", ["gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax"])
def test_sparse_members_of_gnu_tar(tmp_path: Path, tar_format: str) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        for n in range(60):
            file.seek(n * 1_000_000)
            file.write(b"data %d" % n)
        file.truncate(80_000_000)
    command = ["tar", "-C", str(tmp_path), "-S", "-c", *f"--format={tar_format}".split(), "sparse"]
    tar = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    assert len(tar) < 1_000_000
    layer = squash(tar, tmp_path / "layer")
    assert layer.stat().st_size < 200_000
    with Image.open(layer) as image, image.open_file("sparse") as stored, sparse.open("rb") as original:
        while block := original.read(1 << 20):
            assert stored.read(1 << 20) == block
        assert stored.read() == b""


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "", "a" * 256])
def test_a_name_that_leaves_the_image_or_fits_nowhere_is_refused_and_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConvertError, match="tar member"):
        squash(make_tar({"ok": Item(), name: Item()}), tmp_path / "l")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("f", Item()), ("f/x", Item())], "its parent is no directory"),
        ([("d", directory()), ("l", Item("link", target="d"))], "a hard link to a directory"),
        ([("l", Item("link", target="d")), ("d", directory())], "a hard link to a directory"),
        ([("l", Item("link", target="../x"))], "refused"),
        ([("s", Item("symlink", target="x" * 4096))], "impossible symbolic link"),
        ([("l", Item("symlink", target="l")), ("l/x", Item())], "too many symbolic links"),
        ([("c", Item("character", device=(5000, 1)))], "no such device"),
        ([(".wh..wh.implied", Item())], "reserved"),
        ([("./", Item())], "root can only be a directory"),
    ],
)
def test_what_no_image_can_hold_is_refused(tmp_path: Path, pairs: list[tuple[str, Item]], message: str) -> None:
    with pytest.raises(ConvertError, match=message):
        squash(make_tar(pairs, tarfile.GNU_FORMAT), tmp_path / "l")


def test_a_name_with_a_nul_in_a_pax_header_is_refused(tmp_path: Path) -> None:
    tar = make_tar({"é" * 60: Item()}).replace("é".encode() * 60, b"a\0b" + b"c" * 117)
    with pytest.raises(ConvertError, match=r"a\\+x00bccc"):
        squash(tar, tmp_path / "l")


def test_a_damaged_tar_is_never_taken_for_a_shorter_one(tmp_path: Path) -> None:
    tar = make_tar({"a": Item(content=b"x" * 2000), "b": Item(content=b"y" * 2000)})
    for end in (100, 512, 700, 2048, 3000, 3100, 4000):
        if end != 2560:
            with pytest.raises(ConvertError, match="cut off"):
                squash(tar[:end], tmp_path / "l")
    with pytest.raises(ConvertError, match="checksum"):
        squash(tar[:2600] + b"!" + tar[2601:], tmp_path / "l")
    assert list(tmp_path.iterdir()) == []


def test_a_pax_header_without_end_is_refused(tmp_path: Path) -> None:
    tar = make_tar({"é" * 60: Item()})
    start = tar.index(b" path=") - 3
    for record in (b"00000000000", b"0 path=aaaaaaaaaaa\n", b"9 path=aa\n" + b"a" * 30, b"129_path=", b"-29 path="):
        with pytest.raises(ConvertError, match="damaged tar"):
            squash(tar[:start] + record + tar[start + len(record) :], tmp_path / "l")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 511), st.sampled_from(b"0179/.\0\xff\x80SLKxg \n=")), max_size=4
    )
)
def test_headers_of_any_kind_give_an_error_or_a_layer(changes: list[tuple[int, int, int]]) -> None:
    tar = bytearray(make_tar({**EVERYTHING, "dir/blocks": Item(content=b"b"), "dir/hole": Item()}))
    headers = [place for place in range(0, len(tar), 512) if tar[place + 257 : place + 262] == b"ustar"]
    for header, place, value in changes:
        tar[headers[header % len(headers)] + place] = value
    for place in headers:
        tar[place + 148 : place + 156] = b" " * 8
        tar[place + 148 : place + 156] = b"%06o\0 " % sum(tar[place : place + 512])
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        try:
            squash(bytes(tar), Path(folder) / "l", Options(block_size=4096))
        except ConvertError:
            assert list(Path(folder).iterdir()) == []


def test_an_earlier_image_stays_when_a_new_one_fails(tmp_path: Path) -> None:
    layer = squash(make_tar({"x": Item()}), tmp_path / "l")
    before = layer.read_bytes()
    with pytest.raises(ConvertError):
        squash(b"not a tar" * 100, layer)
    assert layer.read_bytes() == before and list(tmp_path.iterdir()) == [layer]


def test_ten_thousand_levels_and_a_long_directory(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 10_000)
    many = {f"many/{n:06}-{'x' * (n % 50)}": Item(content=b"%d" % n) for n in range(5000)}
    layer = merged([make_tar({deep: Item(content=b"bottom"), **many})], tmp_path)
    with Image.open(layer) as image:
        assert image.read(deep) == b"bottom"
        assert image.listdir("many") == sorted(name[5:] for name in many)
        assert sum(1 for _ in image.walk()) == 10_000 + 5002


def test_a_file_that_ends_in_many_gigabytes_of_nothing(tmp_path: Path) -> None:
    # 6 GiB: size, sparse bytes and block list need the extended inode; GNU sparse headers keep the tar small.
    header = bytearray(make_tar({"huge": Item(content=b"x" * 512)}, tarfile.GNU_FORMAT)[:512])
    size = 6 << 30
    header[156:157] = b"S"
    header[386:410] = b"%011o\0" % (size - 512) + b"%011o\0" % 512
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    layer = squash(bytes(header) + b"x" * 512 + bytes(1024), tmp_path / "l")
    with Image.open(layer) as image, image.open_file("huge") as file:
        node = image.lookup("huge")
        assert node is not None and node.size == size
        assert file.read(100_000) == bytes(100_000)


def test_memory_stays_bounded(tmp_path: Path) -> None:
    program = """
import io, os, sys, tarfile
from pathlib import Path
from hpcbinder.squashfs import Options, write_layer

class Noise(io.RawIOBase):
    def __init__(self, size):
        info = tarfile.TarInfo("noise")
        info.size = self.left = size
        self.head, self.piece = info.tobuf(), os.urandom(1 << 20)
    def readable(self):
        return True
    def read(self, n=-1):
        if self.head:
            head, self.head = self.head, b""
            return head
        n = min(n, self.left, len(self.piece))
        self.left -= n
        return self.piece[self.left % 7:n] + self.piece[:self.left % 7] if n else b""

write_layer(Noise(400 << 20), Path(sys.argv[1]), Options("zstd", 1))
# Not getrusage: that counts what the parent had before exec.
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
    command = [sys.executable, "-c", program, str(tmp_path / "l")]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=dict(os.environ)).stdout
    assert (tmp_path / "l").stat().st_size > 400 << 20
    assert int(output) < 100 << 10


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    program = """
import io, resource, sys
from pathlib import Path
from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import Options, write_layer

resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    write_layer(sys.stdin.buffer, Path(sys.argv[1]), Options())
except ConvertError as error:
    print(error)
"""
    tar = make_tar({f"f{n}": Item(content=random.Random(n).randbytes(300_000)) for n in range(9)})
    command = [sys.executable, "-c", program, str(tmp_path / "l")]
    output = subprocess.run(command, check=True, input=tar, stdout=subprocess.PIPE).stdout
    assert b"cannot write the squashfs image: File too large" in output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        ("lzo", None, 4096),
        ("lz4", 13, 4096),
        ("xz", 10, 4096),
        ("gzip", 13, 4096),
        ("zstd", 0, 4096),
        ("gzip", None, 5000),
    ],
)
def test_options_out_of_range_are_usage_errors(wrong: tuple[str, int | None, int]) -> None:
    with pytest.raises(UsageError):
        Options(*wrong)

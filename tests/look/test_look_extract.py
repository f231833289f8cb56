"""Files out of images: what comes out, for whom, and that nothing else is touched."""

from __future__ import annotations

import os
import random
import stat
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from descriptors import descriptors
from look_support import Item, folder, quiet, squashfs

from hpcbinder.errors import ConvertError, UsageError
from hpcbinder.look import extract, open_image
from hpcbinder.squashfs import Options

TREE = {
    "d": folder(0o755),
    "d/small": Item(b"hello\n", mode=0o4755, mtime=1_000_000_000, xattr="a note"),
    "d/blocks": Item(os.urandom(300_000)),
    "d/holes": Item(b"begin" + bytes(5_000_000) + b"end"),
    "d/hard": Item(kind="link", target="d/small"),
    "d/out": Item(kind="symlink", target="/etc/passwd"),
    "d/pipe": Item(kind="fifo", mode=0o620),
    "d/device": Item(kind="character", mode=0o666),
    "d/closed": folder(0o555),
    "d/closed/in": Item(b"inside", mode=0o400),
    "d/set": folder(0o2775),
    "way": Item(kind="symlink", target="d"),
}


def take(image: Path, path: str, destination: Path, **how: bool) -> tuple[Path, tuple[str, ...]]:
    with open_image(image) as opened:
        done = extract(opened, path, destination, quiet, **how)
    return done.target, done.skipped


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squashfs(tmp_path_factory.mktemp("image") / "image", TREE, Options("zstd", None, 16384))


def test_a_folder_comes_out_as_it_is(image: Path, tmp_path: Path) -> None:
    target, skipped = take(image, "/d", tmp_path / "copy")
    assert target == tmp_path / "copy"
    for name in ("small", "blocks", "holes"):
        assert (target / name).read_bytes() == TREE[f"d/{name}"].content
    small = (target / "small").stat()
    assert (stat.S_IMODE(small.st_mode), small.st_mtime, small.st_nlink) == (0o755, 1_000_000_000, 2)
    assert small.st_ino == (target / "hard").stat().st_ino
    assert os.getxattr(target / "small", "user.note") == b"a note"
    assert (target / "holes").stat().st_blocks * 512 < 200_000
    assert (target / "out").readlink() == Path("/etc/passwd")
    assert stat.S_ISFIFO((target / "pipe").lstat().st_mode)
    assert stat.S_IMODE((target / "closed").stat().st_mode) == 0o555
    assert stat.S_IMODE((target / "set").stat().st_mode) == 0o775
    assert (target / "closed").stat().st_mtime == 1_600_000_000
    if os.geteuid() == 0:
        assert skipped == () and stat.S_ISCHR((target / "device").lstat().st_mode)


def test_set_id_bits_are_for_those_who_ask(image: Path, tmp_path: Path) -> None:
    target, _ = take(image, "/d", tmp_path / "copy", set_id=True)
    assert stat.S_IMODE((target / "small").stat().st_mode) == 0o4755
    assert stat.S_IMODE((target / "set").stat().st_mode) == 0o2775


AS_NOBODY = """
import os, sys
from pathlib import Path
from hpcbinder.look import extract, open_image
with open_image(Path(sys.argv[1])) as image:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    done = extract(image, "/d", Path(sys.argv[2]), lambda done: None)
    print(*done.skipped, sep="\\n")
"""


def test_an_ordinary_user_gets_all_but_devices_and_owners(image: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        copy = Path(folder) / "copy"
        command = [sys.executable, "-c", AS_NOBODY, str(image), str(copy)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert done.stdout == "left out device: a device, which only root can make\n"
        assert not (copy / "device").exists()
        assert (copy / "closed/in").stat().st_uid == copy.stat().st_uid != 0
        assert stat.S_IMODE((copy / "closed").stat().st_mode) == 0o555
        assert names(Path(folder)) == ["copy"]


def test_one_file_goes_into_a_folder_under_its_own_name(image: Path, tmp_path: Path) -> None:
    target, _ = take(image, "way/small", tmp_path)
    assert target == tmp_path / "small"
    assert target.read_bytes() == b"hello\n"
    assert names(tmp_path) == ["small"]


def test_a_link_is_taken_as_a_link_and_followed_with_a_slash(image: Path, tmp_path: Path) -> None:
    assert take(image, "way", tmp_path / "link")[0].readlink() == Path("d")
    assert (take(image, "way/", tmp_path / "folder")[0] / "small").is_file()


def test_nothing_that_is_there_is_replaced(image: Path, tmp_path: Path) -> None:
    (tmp_path / "small").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for destination in (tmp_path, tmp_path / "small", tmp_path / "dangling"):
        with pytest.raises(UsageError, match="is there already"):
            take(image, "d/small", destination)
    assert (tmp_path / "small").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(("path", "words"), [("nothing", "nothing at"), ("d/small/x", "nothing at"), ("/", "new name")])
def test_what_cannot_be_meant_is_one_clear_error(image: Path, tmp_path: Path, path: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        take(image, path, tmp_path)
    with pytest.raises(ConvertError, match="No such file"):
        take(image, "d", tmp_path / "no/where")


def test_the_whole_image_can_be_had(image: Path, tmp_path: Path) -> None:
    target, _ = take(image, "..", tmp_path / "root")
    assert {"d", "way"} <= set(names(target))


def test_damage_in_the_middle_leaves_nothing(image: Path, tmp_path: Path) -> None:
    data = bytearray(image.read_bytes())
    # The long file's blocks are random, stored as they are; those of the one with holes follow and are packed.
    with open_image(image) as opened:
        node = dict(opened.walk())["d/holes"]
        start = opened.place(node)[0]
    data[start : start + 4] = b"\xff" * 4
    (tmp_path / "damaged").write_bytes(data)
    with pytest.raises(ConvertError, match="damaged squashfs block"):
        take(tmp_path / "damaged", "d", tmp_path / "copy")
    assert names(tmp_path) == ["damaged"]


def test_hostile_images_leave_nothing_and_touch_nothing(image: Path, tmp_path: Path) -> None:
    data = image.read_bytes()
    (start,) = struct.unpack_from("<Q", data, 64)  # where the tables begin
    source = random.Random(7)
    (tmp_path / "into").mkdir()
    failed = 0
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(source.randint(1, 3)):
            damaged[source.randrange(start, len(data))] ^= 1 << source.randrange(8)
        (tmp_path / "image").write_bytes(damaged)
        try:
            take(tmp_path / "image", "d", tmp_path / "into")
        except (ConvertError, UsageError):
            failed += 1
            assert names(tmp_path / "into") == []
        else:
            assert names(tmp_path / "into") == ["d"]
            subprocess.run(["rm", "-r", str(tmp_path / "into/d")], check=True)
        assert names(tmp_path) == ["image", "into"]
    assert failed > 30


def test_a_tree_deeper_than_any_path_comes_out_and_goes_away(tmp_path: Path) -> None:
    deep = {"/".join("x" * n): Item(kind="directory", mode=0o500) for n in (1, 2, 3000)}
    image = squashfs(tmp_path / "image", {**deep, "x/" * 3000 + "end": Item(b"deep" * 100)})
    try:
        target, _ = take(image, "x", tmp_path / "copy")
        found = subprocess.run(["find", str(target), "-name", "end"], check=True, capture_output=True)
        assert len(found.stdout.split(b"/")) > 3000
    finally:
        # Not left to pytest, which is not made for such depths.
        subprocess.run(["chmod", "-R", "u+w", str(tmp_path)], check=True)
        subprocess.run(["rm", "-rf", str(tmp_path / "copy")], check=True)
    # And when it fails at the end, all of it is cleared away, and nothing stays open.
    before = descriptors()
    data = bytearray(image.read_bytes())
    data[96] ^= 0xFF  # of the only block: `end`
    image.write_bytes(data)
    try:
        with pytest.raises(ConvertError, match="damaged"):
            take(image, "x", tmp_path / "copy")
        assert names(tmp_path) == ["image"]
        assert descriptors() == before
    finally:
        subprocess.run(["sh", "-c", f"rm -rf {tmp_path}/.hpc* {tmp_path}/copy"], check=True)

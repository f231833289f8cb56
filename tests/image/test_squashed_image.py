"""A squashfs as an image of one layer: nothing of its files is lost on the way into a tar."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from hpcbinder.errors import ConvertError
from hpcbinder.image import SquashedImage
from hpcbinder.model import ImageConfig
from hpcbinder.squashfs import Options, merge, write_layer

CONFIG = ImageConfig("sha256:1", "amd64", "", {"A": "1"}, ("/e",), ("c",), "/w", {"l": "x"}, ("/v",), ("sha256:2",))
LONG = "/".join(["a" * 90] * 5)
ODD = "by\udcfftes and blanks\n"


def member(name: str, kind: bytes = tarfile.REGTYPE, **about: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mtime = 1_600_000_000
    for key, value in about.items():
        setattr(info, key, value)
    return info


FILES: list[tuple[tarfile.TarInfo, bytes]] = [
    (member(".", tarfile.DIRTYPE, mode=0o755), b""),
    (member("bin", tarfile.DIRTYPE, mode=0o1777, uid=7, gid=8), b""),
    (member("bin/big", mode=0o4755, uid=1000, gid=2_000_000_000), bytes(range(256)) * 20_000),
    (member("bin/empty", mode=0o600), b""),
    (member("bin/name", tarfile.LNKTYPE, linkname="bin/big"), b""),
    (member("bin/link", tarfile.SYMTYPE, mode=0o777, linkname="../away"), b""),
    (member("bin/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3), b""),
    (member("bin/disk", tarfile.BLKTYPE, mode=0o660, devmajor=8, devminor=300), b""),
    (member("bin/pipe", tarfile.FIFOTYPE, mode=0o644), b""),
    (member(ODD, mode=0o644), b"odd"),
    (member(LONG, mode=0o644), b"deep"),
]


def tar_of(files: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        for info, content in files:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def seen(tar: bytes) -> dict[str, tuple[object, ...]]:
    """What is in a tar, by the standard library; of folders that only paths name, the tar of a squashfs tells too."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as archive:
        for info in archive:
            file = archive.extractfile(info) if info.isreg() else None
            about = (info.mode, info.uid, info.gid, info.mtime) if not info.islnk() else ()
            device = (info.devmajor, info.devminor) if info.isdev() and not info.isfifo() else ()
            found[info.name] = (info.type, info.linkname, *about, *device, file.read() if file else b"")
    return found


@pytest.fixture
def squashfs(tmp_path: Path) -> Path:
    layer, path = tmp_path / "layer.squashfs", tmp_path / "image.squashfs"
    write_layer(io.BytesIO(tar_of(FILES)), layer, Options())
    with path.open("w+b") as file:
        merge([layer], file)
    return path


def test_every_file_is_there_as_it_was(squashfs: Path, tmp_path: Path) -> None:
    image = SquashedImage(squashfs, CONFIG, tmp_path)
    ((diff_id, stream),) = image.layers(image.config.diff_ids)
    tar = stream.read()
    assert diff_id == f"sha256:{hashlib.sha256(tar).hexdigest()}"
    before, after = seen(tar_of(FILES)), seen(tar)
    assert {name: after[name] for name in before} == before
    folders = set(after) - set(before)
    assert folders == {"/".join(["a" * 90] * depth) for depth in range(1, 5)}


def test_the_configuration_is_the_images_but_for_its_layers(squashfs: Path, tmp_path: Path) -> None:
    config = SquashedImage(squashfs, CONFIG, tmp_path).config
    assert (config.env, config.entrypoint, config.volumes) == ({"A": "1"}, ("/e",), ("/v",))
    assert len(config.diff_ids) == 1
    assert config.diff_ids != CONFIG.diff_ids


def test_the_same_squashfs_is_the_same_layer_wherever_it_lies(squashfs: Path, tmp_path: Path) -> None:
    behind = tmp_path / "behind"
    behind.write_bytes(b"x" * 4096 + squashfs.read_bytes())
    plain = SquashedImage(squashfs, CONFIG, tmp_path)
    assert SquashedImage(behind, CONFIG, tmp_path, offset=4096).config == plain.config
    for _ in range(2):
        ((_, stream),) = plain.layers(plain.config.diff_ids)
        assert f"sha256:{hashlib.sha256(stream.read()).hexdigest()}" == plain.config.diff_ids[0]


def test_the_holes_of_a_sparse_file_take_no_space(tmp_path: Path) -> None:
    holes = b"begin" + bytes(8 << 20)
    layer = tmp_path / "sparse.squashfs"
    write_layer(io.BytesIO(tar_of([(member("sparse"), holes)])), layer, Options())
    image = SquashedImage(layer, CONFIG, tmp_path)
    ((diff_id, stream),) = image.layers(image.config.diff_ids)
    assert os.fstat(stream.fileno()).st_blocks * 512 < 4 << 20
    tar = stream.read()
    assert diff_id == f"sha256:{hashlib.sha256(tar).hexdigest()}"
    assert seen(tar)["sparse"][-1] == holes


def test_it_has_no_other_layer_and_leaves_nothing(squashfs: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    image = SquashedImage(squashfs, CONFIG, scratch)
    assert list(image.layers(())) == []
    with pytest.raises(ConvertError, match="the image has no layer sha256:2"):
        list(image.layers(("sha256:2",)))
    assert list(scratch.iterdir()) == []


def test_a_damaged_squashfs_is_one_error(squashfs: Path, tmp_path: Path) -> None:
    raw = bytearray(squashfs.read_bytes())
    raw[100:2000] = b"\xff" * 1900
    squashfs.write_bytes(raw)
    with pytest.raises(ConvertError, match="damaged"):
        SquashedImage(squashfs, CONFIG, tmp_path)

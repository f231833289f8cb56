"""Damage is found, wherever it is; whole files are whole."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from look_support import Item, folder, quiet, sif, squashfs

from hpcbinder.errors import ConvertError
from hpcbinder.look import check, open_image
from hpcbinder.sif import Kind, SifObject, read_sif
from hpcbinder.squashfs import Options, merge
from rig import Apptainer

TREE = {
    "d": folder(),
    "d/packed": Item(bytes(range(256)) * 800),
    "d/small": Item(b"in a fragment " * 20, xattr="a note"),
    "d/hard": Item(kind="link", target="d/small"),
    "link": Item(kind="symlink", target="d"),
    **{f"many/{n:04}{'x' * 60}": Item(b"%d" % n) for n in range(500)},
}
OBJECTS = (SifObject(Kind.DEFFILE, "deffile", b"bootstrap: scratch\n"),)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """An image as runtimes get it: merged, in a SIF."""
    with (tmp_path / "merged").open("w+b") as out:
        merge([squashfs(tmp_path / "layer", TREE, Options(block_size=16384))], out)
    return sif(tmp_path / "x.sif", tmp_path / "merged", *OBJECTS)


def test_a_whole_file_is_whole(whole: Path, tmp_path: Path) -> None:
    assert check(whole, quiet) == []
    assert check(tmp_path / "merged", quiet) == []


def damaged(path: Path, change: Callable[[bytearray, int], None]) -> list[str]:
    data = bytearray(path.read_bytes())
    change(data, read_sif(path).descriptors[-1].offset)
    path.write_bytes(data)
    return check(path, quiet)


def test_a_changed_block_is_named(whole: Path) -> None:
    with open_image(whole) as image:
        start = image.place(dict(image.walk())["d/packed"])[0]

    def change(data: bytearray, offset: int) -> None:
        data[offset + start] ^= 0xFF

    (problem,) = damaged(whole, change)
    assert problem.startswith("/d/packed: damaged squashfs block")


def test_changed_tables_do_not_fit_the_uuid(whole: Path) -> None:
    def change(data: bytearray, offset: int) -> None:
        # The inode table's last byte in front of the directory table: its checksum.
        (end,) = struct.unpack_from("<Q", data, offset + 72)
        data[offset + end - 1] ^= 1

    assert damaged(whole, change)
    with_other_uuid = bytearray(whole.read_bytes())
    with_other_uuid[48] ^= 1
    whole.write_bytes(with_other_uuid)
    assert any("uuid" in problem or "damaged" in problem for problem in check(whole, quiet))


def test_a_uuid_of_other_tables_is_found(whole: Path) -> None:
    def change(data: bytearray, offset: int) -> None:
        data[48] ^= 1

    assert damaged(whole, change) == [
        "the squashfs is not the one the SIF was made with: its uuid does not fit its tables"
    ]


def test_objects_on_top_of_each_other_are_found(whole: Path) -> None:
    def change(data: bytearray, offset: int) -> None:
        # The definition file is said to reach into the squashfs.
        struct.pack_into("<q", data, 4096 + 25, 10_000)

    assert damaged(whole, change) == ["object 2 of the SIF begins inside object 1"]


def test_an_object_on_the_table_is_found(whole: Path) -> None:
    def change(data: bytearray, offset: int) -> None:
        struct.pack_into("<q", data, 4096 + 17, 4096)

    assert damaged(whole, change) == ["object 1 of the SIF begins inside the table of descriptors"]


def test_a_cut_off_file_is_found(whole: Path) -> None:
    whole.write_bytes(whole.read_bytes()[:-5000])
    assert check(whole, quiet) == ["object 2 of the SIF reaches outside the file"]


def test_a_partition_shorter_than_its_image_is_found(whole: Path) -> None:
    def change(data: bytearray, offset: int) -> None:
        struct.pack_into("<q", data, 4096 + 585 + 25, 100)

    assert damaged(whole, change) == ["the squashfs is longer than its partition"]


def test_a_digest_of_an_oci_blob_is_compared(whole: Path) -> None:
    # As in Singularity's OCI-SIF: the descriptor says what the blob's digest is.
    def change(data: bytearray, offset: int) -> None:
        struct.pack_into("<i", data, 4096, Kind.OCI_BLOB)
        data[4096 + 585 - 384 : 4096 + 585] = (b"sha256:" + b"0" * 64).ljust(384, b"\0")

    (problem,) = damaged(whole, change)
    assert problem.startswith("object 1 of the SIF is not what its descriptor says: it has sha256:")


def test_what_is_no_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("#!/bin/sh\n" * 100)
    with pytest.raises(ConvertError, match="not a squashfs image"):
        check(tmp_path / "text", quiet)


@pytest.mark.rig
@pytest.mark.parametrize("kind", ["pem", "pgp"])
def test_what_apptainer_signed_is_compared(
    apptainer: Apptainer, whole: Path, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("APPTAINER_KEYSDIR", str(tmp_path / "keys"))

    def run(*command: str) -> None:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    if kind == "pem":
        run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key.pem")
        run(str(apptainer.path), "sign", "--key", "key.pem", str(whole))
    else:
        name = ("-N", "test", "-E", "test@example.org", "-C", "no", "-P", "", "--push=false", "-b", "2048")
        run(str(apptainer.path), "key", "newpair", *name)
        run(str(apptainer.path), "sign", "-k", "0", str(whole))
    assert [descriptor.kind for descriptor in read_sif(whole).descriptors][-1] == Kind.SIGNATURE
    assert check(whole, quiet) == []
    data = bytearray(whole.read_bytes())
    data[read_sif(whole).descriptors[0].offset] ^= 1
    whole.write_bytes(data)
    (problem,) = check(whole, quiet)
    assert problem.startswith("object 1 of the SIF is not what signature 3 says")

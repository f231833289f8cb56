"""The Singularity Image Format, against the byte layout of apptainer/sif."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.errors import ConvertError
from hpcbinder.sif import Kind, SifObject, primary_partition, read_sif, write_sif

SQUASHFS = b"hsqs" + bytes(range(256)) * 40
OBJECTS = [
    SifObject(Kind.DEFFILE, "deffile", b"bootstrap: docker-daemon\n"),
    SifObject(Kind.JSON, "oci-config.json", b"{}"),
    SifObject(Kind.PARTITION, "rootfs.squashfs", SQUASHFS),
]


def written(path: Path, objects: list[SifObject] = OBJECTS, architecture: str = "amd64") -> bytes:
    with path.open("w+b") as out:
        size = write_sif(out, objects, architecture=architecture, timestamp=1_700_000_000, uuid=b"u" * 16)
    assert size == path.stat().st_size
    return path.read_bytes()


def test_header_is_laid_out_as_apptainer_reads_it(tmp_path: Path) -> None:
    raw = written(tmp_path / "x.sif")
    assert raw[:32] == b"#!/usr/bin/env run-singularity\n\0"
    assert raw[32:48] == b"SIF_MAGIC\x0001\x0002\0"
    assert raw[48:64] == b"u" * 16
    assert struct.unpack_from("<8q", raw, 64) == (
        1_700_000_000,
        1_700_000_000,
        45,
        48,
        4096,
        48 * 585,
        32176,
        len(raw) - 32176,
    )


def test_the_partition_is_aligned_and_primary(tmp_path: Path) -> None:
    raw = written(tmp_path / "x.sif")
    descriptor = 4096 + 2 * 585
    kind, used, number, group, link = struct.unpack_from("<i?III", raw, descriptor)
    assert (kind, used, number, group, link) == (0x4004, True, 3, 0xF0000001, 0)
    offset, size, padded = struct.unpack_from("<3q", raw, descriptor + 17)
    assert offset % 4096 == 0
    assert raw[offset : offset + size] == SQUASHFS
    assert offset + size == len(raw)
    assert padded == size + offset - (32176 + len(OBJECTS[0].content) + len(OBJECTS[1].content))
    assert struct.unpack_from("<ii3s", raw, descriptor + 585 - 384) == (1, 2, b"02\0")


def test_alone_the_partition_stands_at_32768(tmp_path: Path) -> None:
    written(tmp_path / "x.sif", OBJECTS[2:])
    assert primary_partition(tmp_path / "x.sif") == (32768, len(SQUASHFS))


def test_reading_gives_back_what_was_written(tmp_path: Path) -> None:
    written(tmp_path / "x.sif", architecture="arm64")
    sif = read_sif(tmp_path / "x.sif")
    assert (sif.architecture, sif.uuid, sif.created) == ("arm64", b"u" * 16, 1_700_000_000)
    assert [(d.kind, d.id, d.name) for d in sif.descriptors] == [
        (Kind.DEFFILE, 1, "deffile"),
        (Kind.JSON, 2, "oci-config.json"),
        (Kind.PARTITION, 3, "rootfs.squashfs"),
    ]


def test_a_partition_can_be_generated_in_place(tmp_path: Path) -> None:
    def generate(out: BinaryIO, offset: int) -> int:
        out.seek(offset)
        return out.write(SQUASHFS)

    in_place = [*OBJECTS[:2], SifObject(Kind.PARTITION, "rootfs.squashfs", generate)]
    assert written(tmp_path / "a.sif", in_place) == written(tmp_path / "b.sif")


def test_a_longer_file_of_before_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.sif"
    fresh = written(path)
    path.write_bytes(b"\xff" * 500_000)
    with path.open("r+b") as out:
        write_sif(out, OBJECTS, architecture="amd64", timestamp=1_700_000_000, uuid=b"u" * 16)
    assert path.read_bytes() == fresh


def test_what_cannot_be_a_sif_is_refused() -> None:
    with pytest.raises(ConvertError, match="architecture 'vax'"):
        write_sif(io.BytesIO(), OBJECTS, architecture="vax", timestamp=0)
    with pytest.raises(ValueError, match="one partition"):
        write_sif(io.BytesIO(), OBJECTS[:2], architecture="amd64", timestamp=0)
    with pytest.raises(ValueError, match="too long"):
        write_sif(io.BytesIO(), [SifObject(Kind.JSON, "n" * 128, b""), OBJECTS[2]], architecture="amd64", timestamp=0)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda raw: raw[:100], "is no SIF"),
        (lambda raw: b"hsqs" + raw[4:32] + b"SIF_TRAGIC" + raw[42:], "is no SIF"),
        (lambda raw: raw[:42] + b"02\0" + raw[45:], "version"),
        (lambda raw: raw[:88] + struct.pack("<q", 2**40) + raw[96:], "table of descriptors"),
        (lambda raw: raw[:96] + struct.pack("<q", -1) + raw[104:], "table of descriptors"),
        (lambda raw: raw[:-1], "outside the file"),
        (lambda raw: raw[: 4096 + 17] + struct.pack("<q", -5) + raw[4096 + 25 :], "outside the file"),
        (lambda raw: raw[: 4096 + 2 * 585] + bytes(585) + raw[4096 + 3 * 585 :], "no primary partition"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, damage, words: str) -> None:
    path = tmp_path / "x.sif"
    path.write_bytes(damage(written(path)))
    with pytest.raises(ConvertError, match=words):
        primary_partition(path)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match="No such file"):
        read_sif(tmp_path / "none.sif")


@given(position=st.integers(0, 4096 + 3 * 585 - 1), byte=st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int
) -> None:
    path = tmp_path_factory.mktemp("sif") / "x.sif"
    raw = bytearray(written(path))
    raw[position] = byte
    path.write_bytes(raw)
    try:
        offset, size = primary_partition(path)
    except ConvertError:
        return
    assert 0 <= offset <= offset + size <= len(raw)

"""A build context laid out as a folder."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from hpcbinder.engine.unpack import unpack
from hpcbinder.errors import BuildError, FetchError


def folder(name: str, mode: int = 0o755, mtime: int = 5) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = tarfile.DIRTYPE, mode, mtime
    return member, b""


def file(name: str, content: bytes = b"x", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.mode, member.mtime, member.size = mode, 7, len(content)
    return member, content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def written(*entries: tuple[tarfile.TarInfo, bytes]) -> Callable[[BinaryIO], None]:
    def write(out: BinaryIO) -> None:
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for member, content in entries:
                tar.addfile(member, io.BytesIO(content))

    return write


def test_it_is_as_the_tar_says(tmp_path: Path) -> None:
    name = b"na\xc3\xafve \xff\n".decode("utf-8", "surrogateescape")
    unpack(
        written(
            file("Dockerfile", b"FROM x\n"),
            folder("content", 0o750, mtime=9),
            file("content/tool", b"#!/bin/sh\n", 0o755),
            file(f"content/{name}", b"any name"),
            link("content/far", "/scratch/somewhere"),
            link("content/dangling", "../../x"),
        ),
        tmp_path,
    )
    assert (tmp_path / "Dockerfile").read_bytes() == b"FROM x\n"
    content = tmp_path / "content"
    assert (content.stat().st_mode & 0o7777, content.stat().st_mtime) == (0o750, 9)
    assert ((content / "tool").stat().st_mode & 0o7777, (content / "tool").stat().st_mtime) == (0o755, 7)
    assert (content / name).read_bytes() == b"any name"
    assert str((content / "far").readlink()) == "/scratch/somewhere"
    assert str((content / "dangling").readlink()) == "../../x"


@pytest.mark.parametrize(
    "entries",
    [
        [file("../outside")],
        [file("/outside")],
        [file("no/parent")],
        [folder("a"), file("a/../../outside")],
        [link("a", "/tmp"), file("a/b")],
        [file("a"), file("a")],
        [link("a", "/outside"), file("a")],
        [link("a", "Dockerfile", tarfile.LNKTYPE)],
        [link("a", "", tarfile.FIFOTYPE)],
    ],
)
def test_nothing_leads_out_of_it(tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(BuildError, match="build context"):
        unpack(written(*entries), inside)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_what_the_writer_raises_is_raised(tmp_path: Path) -> None:
    def write(out: BinaryIO) -> None:
        written(file("a"))(out)
        raise FetchError("changed under us")

    with pytest.raises(FetchError, match="changed under us"):
        unpack(write, tmp_path)


def test_a_damaged_tar(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="damaged"):
        unpack(lambda out: out.write(b"no tar" * 200) and None, tmp_path)


def test_a_writer_is_not_left_waiting(tmp_path: Path) -> None:
    """More than a pipe holds, after an entry that is refused."""
    with pytest.raises(BuildError):
        unpack(written(file("../x"), file("large", bytes(1 << 20))), tmp_path)

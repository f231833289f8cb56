"""What comes back of a step that an engine ran for packages: a stranger's tar."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcbinder.builders.assembling import only_below, without
from hpcbinder.builders.in_engine.workshop import write_folders
from hpcbinder.contract import EPOCH
from hpcbinder.engine import unpack
from hpcbinder.errors import BuildError, DetectError
from hpcbinder.plan import aside

PARTS = "run/hpcbinder"


def packed(folder: Path, **entries: bytes | str) -> Path:
    """A tar: name with `__` for `/` -> content, or target of a link."""
    path = folder / "step.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in entries.items():
            member = tarfile.TarInfo(name.replace("__", "/"))
            if isinstance(content, str):
                member.type, member.linkname = (tarfile.SYMTYPE, content) if content else (tarfile.DIRTYPE, "")
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def test_what_was_mounted_is_no_part_of_a_layer(tmp_path: Path) -> None:
    names = (
        "run",
        PARTS,
        f"{PARTS}/out",
        f"{PARTS}/.wh.cache",
        "run/.wh.hpcbinder",
        "run/.wh.lock",
        f"{PARTS}2",
        "etc",
    )
    tar = packed(tmp_path, **{name.replace("/", "__"): "" for name in names})
    out = io.BytesIO()
    without(tar, "/run/hpcbinder", out)
    out.seek(0)
    with tarfile.open(fileobj=out) as left:
        assert left.getnames() == ["run/.wh.lock", f"{PARTS}2", "etc"]


def test_only_plain_files_of_the_folder_come_back(tmp_path: Path) -> None:
    tar = packed(
        tmp_path,
        **{
            f"{PARTS}/out": "",
            f"{PARTS}/out/a-1.0-py3-none-any.whl": b"wheel",
            f"./{PARTS}/out/answer.json": b"{}",
            f"{PARTS}/out/link": "/etc/passwd",
            f"{PARTS}/out/deep/file": b"deep",
            f"{PARTS}/out/..": b"up",
            f"{PARTS}/out/../up": b"up",
            f"/{PARTS}/out/whole": b"whole",
            "etc/passwd": b"mine",
        },
    )
    to = tmp_path / "to"
    to.mkdir()
    only_below(tar, "/run/hpcbinder/out", to)
    assert {path.name: path.read_bytes() for path in to.iterdir()} == {
        "a-1.0-py3-none-any.whl": b"wheel",
        "answer.json": b"{}",
        "whole": b"whole",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step.tar", "to"]


def test_nothing_is_written_through_what_is_there(tmp_path: Path) -> None:
    to = tmp_path / "to"
    to.mkdir()
    (to / "answer.json").symlink_to(tmp_path / "mine")
    with pytest.raises(BuildError, match="cannot be kept"):
        only_below(packed(tmp_path, **{f"{PARTS}/out/answer.json": b"{}"}), "/run/hpcbinder/out", to)
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("broken", [b"", b"no tar at all" * 100])
def test_a_damaged_tar_is_an_error(tmp_path: Path, broken: bytes) -> None:
    tar = tmp_path / "step.tar"
    tar.write_bytes(broken)
    with pytest.raises(BuildError, match="damaged"):
        only_below(tar, "/run/hpcbinder/out", tmp_path)
    with pytest.raises(BuildError, match="damaged"):
        without(tar, "/run/hpcbinder", io.BytesIO())


def test_its_dockerfile_is_constant_but_for_the_image(tmp_path: Path) -> None:
    text = aside("localhost/x:1", {"bind-0": "/run/hpcbinder/cache/apt"}, "localhost/tools:1")
    assert text.splitlines() == [
        "# Written by hpcbinder; needs BuildKit.",
        "FROM localhost/tools:1 AS tools",
        "FROM localhost/x:1",
        "RUN \\",
        "    --mount=type=bind,source=step,target=/run/hpcbinder/step \\",
        "    --mount=type=bind,from=tools,source=/,target=/run/hpcbinder/tools \\",
        "    --mount=type=tmpfs,target=/run/hpcbinder/work \\",
        "    --mount=type=bind,source=bind-0,target=/run/hpcbinder/cache/apt,rw \\",
        '    ["/bin/sh", "-eu", "/run/hpcbinder/step/run.sh"]',
    ]
    assert "tools" not in aside("localhost/x:1", {}).replace("hpcbinder", "")
    with pytest.raises(DetectError):
        aside("x\nRUN y", {})


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Not left to pytest, which is not made for depths."""
    yield tmp_path
    subprocess.run(["find", tmp_path, "-mindepth", "1", "-delete"], check=True)


def test_its_context_is_nobodys_and_of_no_time(folder: Path) -> None:
    step, source = folder / "step", folder / "source"
    (step / "source").mkdir(parents=True)
    (step / "run.sh").write_text("true\n")
    deep = source / "/".join("d" * 1200)
    subprocess.run(["mkdir", "-p", deep], check=True)
    (source / "file").write_text("text")
    (source / "same").hardlink_to(source / "file")
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe")
    first, second = io.BytesIO(), io.BytesIO()
    write_folders("FROM x\n", {"step": step, "step/source": source}, first)
    os.utime(source / "file", (1, 1))
    write_folders("FROM x\n", {"step": step, "step/source": source}, second)
    assert first.getvalue() == second.getvalue()
    first.seek(0)
    with tarfile.open(fileobj=first) as tar:
        entries = {entry.name: entry for entry in tar}
        assert (entry := entries["step/source/same"]).isreg() and entry.size == 4
    assert {(entry.uid, entry.gid, entry.uname, entry.mtime) for entry in entries.values()} == {(0, 0, "", EPOCH)}
    assert "step/source/pipe" not in entries and entries["step/source/link"].linkname == "/etc/passwd"
    assert list(entries)[:2] == ["Dockerfile", "step"] and f"step/source/{'/'.join('d' * 1200)}" in entries
    out = folder / "out"
    out.mkdir()
    unpack(lambda file: write_folders("FROM x\n", {"step": step, "step/source": source}, file), out)
    assert (out / "step" / "source" / "same").read_text() == "text"

"""Which commands of an image a module brings: those everybody expects, and those the repository asked for."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from hpcbinder.register.commands import commands_of
from hpcbinder.squashfs import Image, Options, merge, write_layer

ENV = {"PATH": "/opt/env/bin:/opt/jupyter/bin:/usr/local/bin:/usr/bin:/bin"}
SITE = "opt/env/lib/python3.11/site-packages"
PROGRAM = (b"#!/bin/sh\n", 0o755)


def image_of(folder: Path, files: dict[str, tuple[bytes, int] | str]) -> Image:
    """A squashfs with these files (content and mode); a text is a symbolic link."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size, info.mode = len(content[0]), content[1]
                archive.addfile(info, io.BytesIO(content[0]))
    tar.seek(0)
    write_layer(tar, folder / "layer", Options())
    with (folder / "image").open("w+b") as out:
        merge([folder / "layer"], out)
    return Image.open(folder / "image")


def test_what_everybody_expects_is_brought_where_it_is(tmp_path: Path) -> None:
    files = {"opt/env/bin/python": "/usr/bin/python3", "usr/bin/python3": PROGRAM, "usr/bin/ls": PROGRAM}
    with image_of(tmp_path, {**files, "opt/jupyter/bin/jupyter": PROGRAM, "opt/env/bin/R": (b"", 0o644)}) as image:
        assert commands_of(image, ENV, {}) == ("python", "python3", "jupyter")


def test_what_the_repository_asked_for_is_brought(tmp_path: Path) -> None:
    record = (
        "../../../bin/black,,\n../../../bin/bash,,\n../../../bin/gone,,\n../../../../../usr/bin/id,,\nblack/x.py,,\n"
    )
    files = {
        f"{SITE}/Black_x-1.0.dist-info/RECORD": (record.encode(), 0o644),
        f"{SITE}/pytest-8.0.dist-info/RECORD": (b"../../../bin/pytest,,\n", 0o644),
        **{f"opt/env/bin/{name}": PROGRAM for name in ("black", "bash", "pytest")},
        **{f"usr/bin/{name}": PROGRAM for name in ("bash", "id")},
    }
    with image_of(tmp_path, files) as image:
        # Neither what the operating system has, nor what is not there, nor what came with others.
        assert commands_of(image, ENV, {"pypi": ("black-x",)}, host="") == ("black",)


def test_conda_packages_bring_theirs(tmp_path: Path) -> None:
    record = {"files": ["bin/gdalinfo", "bin/-evil", "bin/a b", "bin/sub/x", "lib/x", 3]}
    files = {
        "opt/env/conda-meta/libgdal-core-3.9-h0_1.json": (json.dumps(record).encode(), 0o644),
        "opt/env/conda-meta/other-1-0.json": (b"[", 0o644),
        **{f"opt/env/bin/{name}": PROGRAM for name in ("gdalinfo", "-evil", "a b")},
    }
    with image_of(tmp_path, files) as image:
        assert commands_of(image, ENV, {"conda": ("libgdal-core", "other")}, host="") == ("gdalinfo",)


def test_what_the_host_has_and_what_hears_passwords_is_the_hosts(tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    for name in ("tool", "gcc"):
        (host / name).write_bytes(PROGRAM[0])
        (host / name).chmod(0o755)
    never = ("sudo", "ssh", "kinit", "passwd", "sbatch", "apptainer", "module", "git", "hpcbinder", "bash")
    names = (*never, "tool", "gcc", "pip3.12", "other")
    record = "".join(f"../../../bin/{name},,\n" for name in names)
    files = {f"{SITE}/x-1.dist-info/RECORD": (record.encode(), 0o644)}
    with image_of(tmp_path, {**files, **{f"opt/env/bin/{name}": PROGRAM for name in names}}) as image:
        assert commands_of(image, ENV, {"pypi": ("x",)}, host=str(host)) == ("gcc", "other", "pip3.12")


@pytest.mark.parametrize("content", [b"", b"\xff" * 1000, b"../../../bin/" + b"x" * 500, b"../" * 5000 + b"bin/x"])
def test_a_strangers_list_brings_nothing_else(tmp_path: Path, content: bytes) -> None:
    with image_of(tmp_path, {f"{SITE}/x-1.dist-info/RECORD": (content, 0o644), "opt/env/bin/y": PROGRAM}) as image:
        assert commands_of(image, ENV, {"pypi": ("x",)}) == ()

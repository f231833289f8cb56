"""What differs between two images, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from look_support import Item, folder, quiet, sif, squashfs

from hpcbinder.errors import ConvertError
from hpcbinder.look import differences, open_image
from hpcbinder.squashfs import Options

BEFORE = {
    "same": Item(b"same" * 90_000),
    "holes": Item(b"begin" + bytes(600_000) + b"end"),
    "tail": Item(b"x" * 200),
    "gone": Item(b"gone"),
    "d": folder(),
    "d/link": Item(kind="symlink", target="a"),
    "d/file": Item(b"1" * 50_000 + b"2"),
    "was-file": Item(b""),
    "one": Item(b"1"),
    "two": Item(kind="link", target="one"),
}


def found(one: Path, other: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    with open_image(one) as before, open_image(other) as after:
        return {change.path: (change.change, change.what) for change in differences(before, after, quiet)}


def test_an_image_does_not_differ_from_itself_however_it_is_stored(tmp_path: Path) -> None:
    one = squashfs(tmp_path / "one", BEFORE)
    for options in (Options("zstd"), Options("gzip", 1, 4096), Options("lz4", None, 1 << 20), Options("xz")):
        assert found(one, squashfs(tmp_path / "other", BEFORE, options)) == {}
    assert found(one, sif(tmp_path / "x.sif", one)) == {}


def test_every_way_to_differ_has_its_name(tmp_path: Path) -> None:
    after = {
        **BEFORE,
        "same": replace(BEFORE["same"], mode=0o755, mtime=5),
        "tail": Item(b"x" * 199 + b"y", xattr="new"),
        "d": replace(folder(), owner=(7, 0)),
        "d/link": Item(kind="symlink", target="b"),
        "d/file": Item(b"1" * 50_000 + b"3"),
        "d/new": Item(),
        "was-file": folder(),
        "two": Item(b"1"),
    }
    del after["gone"]
    assert found(squashfs(tmp_path / "a", BEFORE), squashfs(tmp_path / "b", after, Options("zstd", None, 4096))) == {
        "d": ("changed", ("owner",)),
        "d/file": ("changed", ("content",)),
        "d/link": ("changed", ("target",)),
        "d/new": ("added", ()),
        "gone": ("removed", ()),
        "one": ("changed", ("links",)),
        "same": ("changed", ("mode", "time")),
        "tail": ("changed", ("xattrs", "content")),
        "two": ("changed", ("links",)),
        "was-file": ("changed", ("kind", "mode")),
    }


def test_a_hole_is_the_same_as_zeros_and_not_as_anything_else(tmp_path: Path) -> None:
    # In blocks of 1 MiB with "end" in it, nothing is a hole; in blocks of 4 KiB most is.
    one = squashfs(tmp_path / "a", BEFORE, Options(block_size=1 << 20))
    assert found(one, squashfs(tmp_path / "b", BEFORE, Options(block_size=4096))) == {}
    almost = {**BEFORE, "holes": Item(b"begin" + bytes(300_000) + b"\1" + bytes(299_999) + b"end")}
    for size in (4096, 1 << 20):
        other = squashfs(tmp_path / "c", almost, Options(block_size=size))
        assert found(one, other) == found(other, one) == {"holes": ("changed", ("content",))}


def test_content_that_many_files_share_is_compared_once(tmp_path: Path) -> None:
    many = {"./": folder(), **{f"f{n}": BEFORE["same"] for n in range(1000)}}
    one, other = (squashfs(tmp_path / name, many, Options(name)) for name in ("gzip", "zstd"))
    with open_image(one) as before, open_image(other) as after:
        calls = 0
        compare = before.same_content

        def counted(*arguments: object) -> bool:
            nonlocal calls
            calls += 1
            return compare(*arguments)  # type: ignore[arg-type]

        before.same_content = counted  # type: ignore[method-assign]
        assert list(differences(before, after, quiet)) == []
    assert calls == 1


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    whole, damaged = (
        squashfs(tmp_path / "a", {"x": Item(b"1" * 9000)}),
        squashfs(tmp_path / "b", {"x": Item(b"2" * 9000)}),
    )
    data = bytearray(damaged.read_bytes())
    data[96:100] = b"\xff\xff\xff\xff"  # where the first block begins
    damaged.write_bytes(data)
    with pytest.raises(ConvertError, match=f"^{damaged}: damaged squashfs block"):
        found(whole, damaged)

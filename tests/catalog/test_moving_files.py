"""A finished file comes to its place whole, from another disk too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcbinder.catalog import move_file


def test_from_another_disk(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not os.access(other, os.W_OK) or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    source, target = other / f"hpcbinder-test-{os.getpid()}", tmp_path / "target"
    target.write_text("old")
    source.write_bytes(b"x" * 3_000_000)
    source.chmod(0o640)
    try:
        move_file(source, target)
        assert not source.exists()
    finally:
        source.unlink(missing_ok=True)
    assert target.read_bytes() == b"x" * 3_000_000
    assert target.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_on_the_same_disk_it_is_the_same_file(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("new")
    number = source.stat().st_ino
    move_file(source, target)
    assert target.stat().st_ino == number


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "source").touch()
    with pytest.raises(OSError):
        move_file(tmp_path / "source", tmp_path / "none" / "target")
    assert (tmp_path / "source").exists()

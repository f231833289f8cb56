"""Files of other people, and what stands in their place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from descriptors import none_left

from hpcbinder.regular import open_regular


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    file = open_regular(tmp_path / "file")
    assert file is not None
    with file:
        assert file.read() == b"text"


def test_nothing_else_is_and_nothing_stays_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    with none_left():
        for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
            assert open_regular(path) is None
        for path in (tmp_path / "link", tmp_path / "none"):
            with pytest.raises(OSError):
                open_regular(path)
        assert open_regular(tmp_path / "link", follow=True) is not None

"""Removing what a hostile repository left, writing whole files only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from entries import names

from hpcbinder.catalog.files import remove_tree, write_atomic


def test_a_very_deep_folder_goes(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    script = "import os\nfor i in range(3000):\n  os.mkdir('d'); open('f', 'w').close(); os.chdir('d')"
    subprocess.run([sys.executable, "-c", script], cwd=top, check=True)
    remove_tree(top)
    assert names(tmp_path) == []


def test_closed_folders_odd_names_and_links_go_and_their_targets_stay(tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").write_text("x")
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "link").symlink_to(keep)
    (top / "a" / "b" / "link").symlink_to(keep)
    (top / "a" / os.fsdecode(b"\xff\n")).write_text("x")
    os.mkfifo(top / "fifo")
    (top / "a" / "b").chmod(0)
    (top / "a").chmod(0o500)
    remove_tree(top)
    assert not top.exists()
    assert (keep / "file").read_text() == "x"


def test_a_link_itself_goes_not_its_target(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "never was")
    assert names(tmp_path) == ["folder"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record"
    write_atomic(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError("disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["record"]

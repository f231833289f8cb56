"""Files that a purge took come back where they were, and nowhere else: somebody who may write to the copy moves its
folders just then."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hpcbinder.runtime.launch.space.purge import put_back


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    (tmp_path / "fresh/data").mkdir(parents=True)
    (tmp_path / "fresh/data/table.csv").write_text("of the image")
    (tmp_path / "copy/data").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    return tmp_path / "fresh"


def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, home = fresh.with_name("copy"), fresh.with_name("home")
    (home / "table.csv").write_text("mine")
    rename = os.rename

    def late(source: Any, target: Any, **where: Any) -> None:
        rename(copy / "data", copy / "gone")
        (copy / "data").symlink_to(home)
        rename(source, target, **where)

    monkeypatch.setattr(os, "rename", late)
    put_back(str(fresh), str(copy), ["data/table.csv"])
    assert (home / "table.csv").read_text() == "mine"
    assert (copy / "gone/table.csv").read_text() == "of the image"


def test_nothing_is_put_behind_a_link_or_over_something(fresh: Path) -> None:
    copy, home = fresh.with_name("copy"), fresh.with_name("home")
    (copy / "data").rmdir()
    (copy / "data").symlink_to(home)
    assert put_back(str(fresh), str(copy), ["data/table.csv"]) == []
    assert list(home.iterdir()) == []
    (copy / "data").unlink()
    (copy / "data").touch()
    assert put_back(str(fresh), str(copy), ["data/table.csv", "data", "none/at/all"]) == []
    (copy / "data").unlink()
    assert put_back(str(fresh), str(copy), ["data/table.csv"]) == ["data/table.csv"]
    assert (copy / "data/table.csv").read_text() == "of the image"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to somebody else")
def test_nothing_is_put_in_somebody_else_s_folder(fresh: Path) -> None:
    copy = fresh.with_name("copy")
    os.chown(copy / "data", 65534, 65534)
    assert put_back(str(fresh), str(copy), ["data/table.csv"]) == []
    assert list((copy / "data").iterdir()) == []

"""Putting a kernelspec where another process is just taking its own away."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest

placing = importlib.import_module("hpcbinder.register.place")  # the package has a function of that name
FILES = {"kernel.json": json.dumps({"metadata": {"hpcbinder": {"id": "a"}}}).encode()}


def test_what_another_has_just_taken_away_is_no_stranger_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "kernels/a"
    placing.place(folder, {"kernel.json": b"{}", "other": b""})
    real, asked = placing.owner, []

    def owner(path: Path) -> object:
        asked.append(path)
        if len(asked) == 2:  # the swap's, after the look whether it is there already
            shutil.rmtree(path)
        return real(path)

    monkeypatch.setattr(placing, "owner", owner)
    assert placing.place(folder, FILES)
    assert [path.name for path in folder.iterdir()] == ["kernel.json"]

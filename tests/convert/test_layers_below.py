"""Squashed layers of other stores are used where they are, and a use is noted."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcbinder.convert import LayerCache
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Options

IDENTITY = f"sha256:{'a' * 64}"
DAY = 24 * 3600


def write(path: Path) -> None:
    path.write_bytes(b"x")


def never(path: Path) -> None:
    raise AssertionError("it is there")


def test_a_layer_of_another_store_is_not_made_again(tmp_path: Path) -> None:
    site, mine = tmp_path / "site", tmp_path / "mine"
    made = LayerCache(site, Options()).ensure_made(IDENTITY, write, tmp_path, Silent())
    cache = LayerCache(mine, Options(), below=[site])
    assert cache.ensure_made(IDENTITY, never, tmp_path, Silent()) == made
    assert cache.squashed == 0 and list(mine.iterdir()) == []
    # Compressed otherwise it is another one.
    other = LayerCache(mine, Options("gzip", 1), below=[site])
    with pytest.raises(AssertionError):
        other.ensure_made(IDENTITY, never, tmp_path, Silent())


def test_what_scripts_made_is_not_taken_from_another_store(tmp_path: Path) -> None:
    site, mine = tmp_path / "site", tmp_path / "mine"
    LayerCache(site, Options()).ensure_made(IDENTITY, write, tmp_path, Silent(), shared=False)
    cache = LayerCache(mine, Options(), below=[site])
    found = cache.ensure_made(IDENTITY, write, tmp_path, Silent(), shared=False)
    assert found.parent == mine and cache.squashed == 1
    assert cache.ensure_made(IDENTITY, never, tmp_path, Silent(), shared=False) == found


def test_layers_of_tars_are_found_below_too(tmp_path: Path) -> None:
    site = LayerCache(tmp_path / "site", Options())
    (tmp_path / "site").mkdir()
    site.path(IDENTITY).write_bytes(b"x")
    cache = LayerCache(tmp_path / "mine", Options(), below=[tmp_path / "site", tmp_path / "gone"])
    assert cache.missing([IDENTITY, f"sha256:{'b' * 64}"]) == [f"sha256:{'b' * 64}"]
    # What was made without a tar is never taken for the layer of one.
    assert site.made(IDENTITY).name != site.path(IDENTITY).name


def test_a_use_is_noted_to_the_day(tmp_path: Path) -> None:
    cache = LayerCache(tmp_path, Options())
    path = cache.ensure_made(IDENTITY, write, tmp_path, Silent())
    os.utime(path, (time.time() - 40 * DAY,) * 2)
    cache.ensure_made(IDENTITY, never, tmp_path, Silent())
    assert time.time() - path.stat().st_mtime < DAY

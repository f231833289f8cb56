"""What images have in common: counted from the layers that they say they were made of."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcbinder.catalog import Catalog, shared_bytes
from hpcbinder.model import BaseRef, Entry, ImageConfig, Lock, LockedPackage
from hpcbinder.statistics import statistics

BASE, SERVER = "a" * 64, "b" * 64
NUMPY, SIX = f"{'1' * 64}-{'0' * 16}-gzip6-131072.squashfs", f"{'2' * 64}-{'0' * 16}-gzip6-131072.squashfs"


def identity(name: str) -> str:
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Two images on one base, both with numpy, one of them with six too."""
    catalog = Catalog(tmp_path / "store")
    lock = Lock("pypi", "", "3.11", "", (LockedPackage("numpy", "2.2.6", (f"sha256:{'1' * 64}",)),), (("numpy",),))
    for name, more in (("first", []), ("second", [identity(SIX)])):
        layers = (f"sha256:{BASE}", f"sha256:{SERVER}", identity(NUMPY), *more)
        with catalog.temporary() as scratch:
            folder = scratch / "image"
            folder.mkdir()
            (folder / "image.sif").write_bytes(os.urandom(40_960))
            entry = Entry(
                id=f"{name}-000000000001",
                source="https://example.org/chirp",
                ref="main",
                commit="c" * 40,
                uncommitted=False,
                subdir="",
                buildpacks=(),
                base=BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", "1"),
                image={"name": "x", "digest": "sha256:0"},
                config=ImageConfig("sha256:0", "amd64", "", {}, (), (), "", {}, (), layers),
                formats={"sif": "image.sif"},
                kernels=(),
                packages={},
                decisions=(),
                timings={},
                size=40_000,
                created=int(time.time()),
                locks=(lock,),
            )
            catalog.add(entry, folder)
    (catalog.path / "wheels/layers").mkdir(parents=True)
    sizes = {
        f"layers/{BASE}-gzip6-131072-v3.squashfs": 8192,
        f"layers/{SERVER}-gzip6-131072-v3-made.squashfs": 12_288,
        f"layers/{'c' * 64}-gzip6-131072-v3.squashfs": 4096,
        f"wheels/layers/{NUMPY}": 16_384,
        f"wheels/layers/{SIX}": 4096,
        f"wheels/{'1' * 64}.whl": 4096,
    }
    for path, size in sizes.items():
        (catalog.path / path).write_bytes(os.urandom(size))
    return catalog


def test_what_several_images_have_is_counted_once(catalog: Catalog) -> None:
    found = statistics(catalog)
    assert (found.images, found.alone, found.formats) == (2, 80_000, {"sif": 81_920})
    assert found.layers == 8192 + 12_288 + 16_384 + 4096
    assert found.saved == 8192 + 12_288 + 16_384
    kinds = {name: (kind.files, kind.used, kind.uses, kind.saved) for name, kind in found.kinds.items()}
    assert kinds["layer"] == (2, 1, 2, 8192)
    assert kinds["made"] == (1, 1, 2, 12_288)
    assert kinds["package"] == (2, 2, 3, 16_384)
    assert kinds["wheel"] == (1, 0, 0, 0)
    (package,) = found.packages
    assert (package.name, package.version, package.images, package.saved) == ("numpy", "2.2.6", 2, 16_384)


def test_the_command_says_the_same(catalog: Catalog) -> None:
    command = [sys.executable, "-m", "hpcbinder", "--store", str(catalog.path), "stats"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "2 images, were each one SIF" in shown and "numpy" in shown
    told = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert (told["images"], told["saved"], told["packages"][0]["name"]) == (2, 36_864, "numpy")


def test_an_empty_store_has_nothing_in_common(tmp_path: Path) -> None:
    found = statistics(Catalog(tmp_path / "none"))
    assert (found.images, found.saved, found.packages, found.reflinked) == (0, 0, [], None)


def test_shared_blocks_are_told_where_the_file_system_does(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(100_000))
    # Nobody else has its data; a file system that cannot say so says nothing.
    assert shared_bytes(tmp_path / "file") in (0, None)
    assert shared_bytes(tmp_path / "missing") is None

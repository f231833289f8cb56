"""The small image with what notebooks use on a cluster: Dask, ipyparallel, dask-jobqueue, slurm-magic."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import small_image as small

from hpcbinder.model import Entry
from rig import Rig, packages
from rig.process import locked

# Without cryptography, which nothing of these brings: keys are openssl's to make.
_PACKAGES = ("ipykernel", "distributed", "dask-jobqueue", "ipyparallel", "slurm-magic")


@pytest.fixture(scope="session")
def workers_image(rig: Rig) -> Entry:
    """Its catalog entry, in format `squashfs`."""
    packages.ensure(("openssl", "python3", "squashfs-tools"))
    folder = rig.folder / "workers-image"
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    squashfs, recipe = (folder / f"python{small.PYTHON}.{suffix}" for suffix in ("squashfs", "recipe"))
    sources = Path(__file__).read_bytes() + Path(small.__file__).read_bytes()
    with locked(folder / "lock"):
        if not squashfs.exists() or not recipe.exists() or recipe.read_bytes() != sources:
            small.make(folder / f"root-{os.getpid()}", squashfs, _PACKAGES, tools=(*small.TOOLS, "openssl"))
            recipe.write_bytes(sources)
    return small.entry_of(squashfs)

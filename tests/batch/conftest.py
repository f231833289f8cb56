"""An image with what executes notebooks, and a repository of notebooks."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import small_image as small
from batch_files import REPOSITORY

from hpcbinder.model import Entry
from rig import Rig, packages
from rig.process import locked

PACKAGES = ("ipykernel", "nbclient", "nbconvert", "requests")


@pytest.fixture(scope="session")
def notebook_image(rig: Rig) -> Entry:
    """`small_image` with nbclient and nbconvert; papermill is not in it."""
    packages.ensure(("python3", "squashfs-tools"))
    folder = rig.folder / "notebook-image"
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    squashfs, recipe = folder / f"python{small.PYTHON}.squashfs", folder / f"python{small.PYTHON}.recipe"
    made_of = b"".join(path.read_bytes() for path in sorted((Path(__file__).parent).glob("*_files.py")))
    made_of += Path(__file__).read_bytes() + Path(small.__file__).read_bytes()
    with locked(folder / "lock"):
        if not squashfs.exists() or not recipe.exists() or recipe.read_bytes() != made_of:
            small.make(folder / f"root-{os.getpid()}", squashfs, PACKAGES, REPOSITORY)
            recipe.write_bytes(made_of)
    entry = small.entry_of(squashfs)
    return dataclasses.replace(entry, id="books-0123456789ab")

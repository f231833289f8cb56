"""An ordinary user's `hpcbinder run` on the login node of a real Slurm."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Iterator

import pytest

from hpcbinder.catalog import Catalog
from hpcbinder.model import Entry
from rig import Apptainer, Slurm, User


class Inside:
    """Somebody's `hpcbinder run`, on the login node."""

    def __init__(self, user: User, slurm: Slurm, apptainer: Apptainer, image: Entry) -> None:
        self.user = user
        self.environ = {**slurm.environment, "PATH": f"{apptainer.bin}:/usr/bin:/bin", "JUPYTERHUB_API_TOKEN": "secret"}
        catalog = Catalog(user.home / "store")
        with catalog.temporary() as place:
            folder = place / "image"
            folder.mkdir()
            shutil.copy(image.formats["squashfs"], folder / "image.squashfs")
            catalog.add(dataclasses.replace(image, formats={"squashfs": "image.squashfs"}), folder)
        user.own(user.home / "store")

    def command(self, script: str, runtime: str = "apptainer") -> list[str]:
        hpcbinder = [sys.executable, "-B", "-m", "hpcbinder", "--store", str(self.user.home / "store")]
        return [*hpcbinder, "run", "--runtime", runtime, "small", "--", "sh", "-c", script]

    def run(self, script: str, runtime: str = "apptainer", **env: str) -> list[str]:
        done = self.user.run(self.command(script, runtime), env={**self.environ, **env}, timeout=120)
        return done.stdout.splitlines()


@pytest.fixture
def inside(user: User, slurm: Slurm, apptainer: Apptainer, small_image: Entry) -> Iterator[Inside]:
    user.knows(slurm.hosts)
    yield Inside(user, slurm, apptainer, small_image)

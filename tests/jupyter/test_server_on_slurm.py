"""Kernels in jobs of a real Slurm below a real Jupyter Server, asked as JupyterLab's page asks."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcbinder.config import Config, RuntimeConfig
from hpcbinder.model import Entry
from hpcbinder.register import register_kernels
from hpcbinder.scheduler import Resources
from rig import Apptainer, Slurm, User

LIFE = str(Path(__file__).with_name("server_life.py"))


@pytest.fixture
def prefix(apptainer: Apptainer, user: User, small_image: Entry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PATH", f"{apptainer.bin}:/usr/bin:/bin")
    place = user.home.parent / "prefix"
    python = dataclasses.replace(small_image, kernels=small_image.kernels[:1])
    config = Config(runtime=RuntimeConfig(name="apptainer"))
    register_kernels(python, config=config, prefix=place, name="job", job=Resources(time="10"))
    yield place
    shutil.rmtree(place)


def test_a_day_at_the_server(prefix: Path, slurm: Slurm, user: User) -> None:
    user.knows(slurm.hosts)
    folder = user.home / "notebooks"
    folder.mkdir()
    os.chown(folder, user.uid, user.uid)
    environ = {"JUPYTER_PATH": str(prefix / "share/jupyter"), "PATH": "/usr/bin:/bin", **slurm.environment}
    done = user.run([sys.executable, LIFE, "job", str(folder)], env=environ, timeout=600)
    seen = json.loads(done.stdout)
    node, job = seen["first"].split()
    assert node in ("n1", "n2")
    assert seen["stopped"] == "running KeyboardInterrupt"
    assert seen["fresh"] == "False"
    assert seen["again"] == f"{node} {job}"
    assert "knows no encryption" not in seen["log"]
    # The server was killed; nobody told Slurm.
    queue = ["squeue", "--noheader", "--me"]
    for _ in range(600):
        left = user.run(queue, env=slurm.environment).stdout
        if not left and not user.processes():
            break
        time.sleep(0.1)
    assert (left, user.processes()) == ("", {})

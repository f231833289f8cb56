"""`make demo`, as a visitor runs it: twice, the second time with everything there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import Rig

ROOT = Path(__file__).parent.parent


@pytest.fixture
def demo(rig: Rig) -> Iterator[Path]:
    """The demo's folder, as the person who runs the tests left it afterwards."""
    if os.geteuid() != 0:
        pytest.skip("the tests' demo runs as root, so that its notebook runs as another user")
    folder, kept = ROOT / ".demo", ROOT / ".demo-kept"
    if folder.exists():
        folder.rename(kept)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    if kept.exists():
        shutil.move(kept, folder)


def make_demo() -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("DOCKER_HOST", "HPCBINDER_RIG")}
    done = subprocess.run(["make", "demo"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


@pytest.mark.heavy
def test_the_demo_runs_and_a_second_time_finds_everything_there(demo: Path) -> None:
    first = make_demo()
    assert "uid 65534, interfaces ['lo'], image pendulum-" in first
    assert "image pendulum-" in first
    assert "every step is data" in first
    assert "step postbuild/run: apptainer" in first
    assert "dockerd" not in first
    assert "uid 65534, interfaces ['lo'], image chirp-" in first
    assert "[a picture]" in first
    assert "[sound]" in first
    assert "uid 65534, interfaces ['lo'], image tsunami-" in first
    assert "the same to the last bit, however many ranks" in first
    for example in ("pendulum", "chirp", "tsunami"):
        assert (demo / "home" / f"{example}.executed.ipynb").exists()
    assert not list((demo / "rig").rglob("*.pid"))
    second = make_demo()
    assert second.count("is in the catalog already") == 3
    assert "interfaces ['lo']" in second

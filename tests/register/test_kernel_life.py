"""A registered kernel's whole life, by jupyter_client, as an ordinary user, and every way it can die."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcbinder.config import Config, RuntimeConfig
from hpcbinder.model import Entry
from hpcbinder.register import register_kernels
from rig import Apptainer, Charliecloud, User

SCENARIO = str(Path(__file__).with_name("kernel_life.py"))


@pytest.fixture(params=["apptainer", "charliecloud"])
def program(request: pytest.FixtureRequest) -> Path:
    part: Apptainer | Charliecloud = request.getfixturevalue(request.param)
    return part.path


@pytest.fixture
def live(
    program: Path, user: User, small_image: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., dict[str, Any]]]:
    """Lead one of kernel_life's lives with a kernel that is registered for the user; what it saw and left."""
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    name = "charliecloud" if program.name == "ch-run" else "apptainer"
    config = Config(runtime=RuntimeConfig(name=name))
    # Registered by root below a prefix, as a centre's staff do it.
    python = dataclasses.replace(small_image, kernels=small_image.kernels[:1])
    prefix = user.home.parent / "prefix"
    register_kernels(python, config=config, prefix=prefix, name="life")
    folder = user.home / "notebooks"
    folder.mkdir()
    os.chown(folder, user.uid, user.uid)

    def lead(scenario: str, where: Path = folder, **env: str) -> dict[str, Any]:
        environ = {"JUPYTER_PATH": str(prefix / "share/jupyter"), "PATH": "/usr/bin:/bin", **env}
        command = [sys.executable, SCENARIO, scenario, "life", str(where)]
        seen: dict[str, Any] = json.loads(user.run(command, env=environ, timeout=600).stdout)
        assert seen["left"] == []
        assert seen["cores"] == []
        assert not [line for line in Path("/proc/mounts").read_text().splitlines() if "squashfuse" in line]
        return seen

    yield lead
    shutil.rmtree(prefix)


def test_a_kernel_works_in_the_notebook_s_folder(live: Callable[..., dict[str, Any]], user: User) -> None:
    seen = live("look", PYTHONPATH="/host", SLURM_JOB_ID="7", CONDA_PREFIX="/host")
    assert seen["uid"] == user.uid
    assert seen["written"] == "by the kernel"
    environ = seen["environ"]
    assert environ["ENTERED"] == "yes"
    assert environ["IMAGE_ID"] == "small"
    assert environ["SLURM_JOB_ID"] == "7"
    assert "CONDA_PREFIX" not in environ
    assert "/host" not in environ.get("PYTHONPATH", "")
    assert seen["ready"] < 20


def test_connection_file_and_folder_are_found_wherever_they_are(
    live: Callable[..., dict[str, Any]], user: User
) -> None:
    scratch = user.home.parent / "scratch"
    temporary = user.home.parent / "tmp"
    for folder in (scratch, temporary):
        folder.mkdir(exist_ok=True)
        os.chown(folder, user.uid, user.uid)
    # jupyter_client puts a connection file without a name into the temporary folder.
    seen = live("look", where=scratch, TMPDIR=str(temporary))
    assert (scratch / "written").exists()
    assert seen["written"] == "by the kernel"


def test_interrupt_and_restart(live: Callable[..., dict[str, Any]]) -> None:
    seen = live("interrupt")
    assert seen["answers"] == ["KeyboardInterrupt", "KeyboardInterrupt"]
    assert (seen["still"], seen["fresh"]) == ("42", "False")


@pytest.mark.parametrize("scenario", ["shutdown-now", "front-end-killed"])
def test_a_front_end_that_kills_or_is_killed(live: Callable[..., dict[str, Any]], scenario: str) -> None:
    live(scenario)


@pytest.mark.parametrize("scenario", ["launcher-killed", "keeper-killed", "runtime-killed", "kernel-killed"])
def test_sigkill_of_any_part(live: Callable[..., dict[str, Any]], scenario: str) -> None:
    seen = live(scenario)
    assert seen["victims"] >= 1
    assert not seen["alive"]


def test_an_image_that_is_gone_says_so(live: Callable[..., dict[str, Any]], user: User, small_image: Entry) -> None:
    folder = user.home.parent / "prefix/share/jupyter/kernels/life"
    described = json.loads((folder / "launch.json").read_text())
    described["image"]["location"] = "/no/such/image.squashfs"
    (folder / "launch.json").write_text(json.dumps(described))
    spec = json.loads((folder / "kernel.json").read_text())
    command = [*spec["argv"][:-1], "/tmp/kernel-1.json"]
    done = user.run(command, check=False, timeout=120)
    assert done.returncode != 0
    assert "/no/such/image.squashfs" in done.stderr

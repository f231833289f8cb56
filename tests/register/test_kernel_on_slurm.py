"""A registered kernel's whole life in a job of a real Slurm: on another node, as an ordinary user."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcbinder.config import Config, RuntimeConfig
from hpcbinder.model import Entry
from hpcbinder.register import register_kernels
from hpcbinder.scheduler import Resources
from rig import Apptainer, Slurm, User

SCENARIO = str(Path(__file__).with_name("kernel_life.py"))


@pytest.fixture
def live(
    apptainer: Apptainer, slurm: Slurm, user: User, small_image: Entry, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., dict[str, Any]]]:
    """Lead one of kernel_life's lives with a kernel in a job; what it saw and left, in the queue too."""
    monkeypatch.setenv("PATH", f"{apptainer.bin}:/usr/bin:/bin")
    user.knows(slurm.hosts)
    python = dataclasses.replace(small_image, kernels=small_image.kernels[:1])
    prefix = user.home.parent / "prefix"
    asked = Resources(partition="debug", time="10", cpus=1)
    register_kernels(
        python, config=Config(runtime=RuntimeConfig(name="apptainer")), prefix=prefix, name="life", job=asked
    )
    folder = user.home / "notebooks"
    folder.mkdir()
    os.chown(folder, user.uid, user.uid)

    def lead(scenario: str, **env: str) -> dict[str, Any]:
        environ = {"JUPYTER_PATH": str(prefix / "share/jupyter"), "PATH": "/usr/bin:/bin", **slurm.environment, **env}
        command = [sys.executable, SCENARIO, scenario, "life", str(folder)]
        done = user.run(command, env=environ, timeout=600)
        seen: dict[str, Any] = json.loads(done.stdout)
        assert seen["left"] == []
        queue = ["squeue", "--noheader", "--me"]
        for _ in range(300):
            left = user.run(queue, env=slurm.environment).stdout
            if not left:
                break
            time.sleep(0.1)
        assert left == ""
        return seen

    yield lead
    shutil.rmtree(prefix)


def test_a_kernel_works_on_another_node(live: Callable[..., dict[str, Any]], user: User) -> None:
    tokens = {"JUPYTERHUB_API_TOKEN": "secret", "JPY_API_TOKEN": "secret"}
    seen = live("look", PYTHONPATH="/host", SLURM_JOB_ID="4294967", **tokens)
    environ = seen["environ"]
    assert seen["uid"] == user.uid
    assert seen["written"] == "by the kernel"
    assert environ["SLURMD_NODENAME"] in ("n1", "n2")
    assert environ["SLURM_JOB_PARTITION"] == "debug"
    assert environ["SLURM_JOB_ID"] != "4294967"
    assert environ["IMAGE_ID"] == "small"
    assert not tokens.keys() & environ.keys()
    assert "/host" not in environ.get("PYTHONPATH", "")


def test_what_crosses_the_network_is_encrypted(live: Callable[..., dict[str, Any]]) -> None:
    seen = live("overheard")
    assert seen["ip"].startswith("10.213.")
    assert seen["keys"] == ["curve_publickey", "curve_secretkey"]
    assert seen["heard"] == 0


def test_interrupt_and_restart(live: Callable[..., dict[str, Any]]) -> None:
    seen = live("interrupt")
    assert seen["answers"] == ["KeyboardInterrupt", "KeyboardInterrupt"]
    assert (seen["still"], seen["fresh"]) == ("42", "False")


def test_a_kernel_that_gets_no_node_is_given_up(live: Callable[..., dict[str, Any]]) -> None:
    seen = live("no-node")
    assert seen["said"].startswith("no node for the kernel within 8 s: job ")
    assert "PENDING" in seen["said"]
    assert seen["queue"] == [seen["taking"]]


@pytest.mark.parametrize("scenario", ["shutdown-now", "front-end-killed"])
def test_a_front_end_that_kills_or_is_killed(live: Callable[..., dict[str, Any]], scenario: str) -> None:
    live(scenario)


def test_a_kernel_that_is_killed_is_seen_to_be_dead(live: Callable[..., dict[str, Any]]) -> None:
    seen = live("kernel-killed")
    assert seen["victims"] >= 1
    assert not seen["alive"]

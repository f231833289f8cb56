"""Workers of a notebook, in its image on the nodes of a real Slurm: the notebook is a kernel in a job itself, inside a
container where there is neither Slurm nor Apptainer."""

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
from waiting import eventually

from hpcbinder.config import Config, RuntimeConfig, SlurmConfig
from hpcbinder.model import Entry
from hpcbinder.register import register_kernels
from hpcbinder.scheduler import Resources
from rig import Apptainer, Slurm, User

SCENARIO = str(Path(__file__).with_name("worker_life.py"))
QUEUE = ["squeue", "--noheader", "--me", "--format=%j %T"]


@pytest.fixture
def live(
    apptainer: Apptainer, slurm: Slurm, user: User, workers_image: Entry, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., dict[str, Any]]]:
    """Lead one of worker_life's lives; what the notebook saw. Nothing may be left of it, in the queue and on disk."""
    monkeypatch.setenv("PATH", f"{apptainer.bin}:/usr/bin:/bin")
    user.knows(slurm.hosts)
    python = dataclasses.replace(workers_image, kernels=workers_image.kernels[:1])
    prefix = user.home.parent / "prefix"
    asked = Resources(partition="debug", time="10", cpus=1)
    folder = user.home / "notebooks"
    folder.mkdir()
    os.chown(folder, user.uid, user.uid)

    def lead(scenario: str, inside: str = "commands") -> dict[str, Any]:
        config = Config(runtime=RuntimeConfig(name="apptainer"), slurm=SlurmConfig(inside=inside))
        register_kernels(python, config=config, prefix=prefix, name="notebook", job=asked)
        environ = {"JUPYTER_PATH": str(prefix / "share/jupyter"), "PATH": "/usr/bin:/bin", **slurm.environment}
        done = user.run([sys.executable, SCENARIO, scenario, "notebook", str(folder)], env=environ, timeout=600)
        assert eventually(lambda: not user.run(QUEUE, env=slurm.environment).stdout)
        assert eventually(lambda: not user.processes()), user.processes()
        assert list((user.home / ".local/state/hpcbinder/workers").iterdir()) == []
        seen: dict[str, Any] = json.loads(done.stdout)
        return seen

    yield lead
    shutil.rmtree(prefix)


def test_workers_in_the_same_image_on_both_nodes(live: Callable[..., dict[str, Any]], user: User) -> None:
    seen = live("all")
    home = str(user.home)
    node, image, job, helper = seen["notebook"]
    assert (node in ("n1", "n2"), image, bool(helper)) == (True, "small", True)

    workers, squares, address, states, shown = seen["dask"]
    assert {worker[0] for worker in workers} == {"n1", "n2"}
    assert {worker[1] for worker in workers} == {image}
    assert job not in {worker[2] for worker in workers}
    assert (squares, states, shown) == (328350, ["RUNNING", "RUNNING"], 404)
    assert address.startswith("tls://10.213.")
    assert "CERTIFICATE_REQUIRED" in seen["stranger"]
    assert seen["keys"] == ["700", "700", "600", "600"]
    assert seen["told"] == []
    assert seen["scaled"] == [["ENDED", "RUNNING"], 42]

    engines, numbers, keys, interface = seen["engines"]
    assert ({engine[0] for engine in engines}, {engine[1] for engine in engines}) == ({"n1", "n2"}, {image})
    assert (numbers, keys) == ([0, 1, 4, 9], ["curve_serverkey", "key"])
    assert interface.startswith("tcp://10.213.")

    ((_, image_there, job_there, _),) = seen["jobqueue"]
    assert image_there == image
    assert job_there not in {job, *(worker[2] for worker in workers)}

    queue, number, cwd = seen["magic"]
    assert number.isdigit()
    assert len([name for name in queue if name.startswith("hpcbinder-workers-")]) == 1
    assert cwd == f"{home}/notebooks"
    told = user.home / "notebooks/told"
    assert eventually(lambda: told.exists() and len(told.read_text().split()) == 2)
    assert told.read_text().split() == [cwd, str(user.uid)]
    states, shown = seen["left"]
    assert ("PENDING" in states, shown) == (True, 200)


def test_nothing_is_left_of_a_notebook_that_is_killed(live: Callable[..., dict[str, Any]]) -> None:
    seen = live("killed", inside="bound")
    assert set(seen["jobs"]) <= {"RUNNING", "PENDING"}
    assert len(seen["jobs"]) == 3
    queue, step, job = seen["bound"]
    assert len([name for name in queue if name.startswith("hpcbinder-workers-")]) == 3
    assert (len(queue), step) == (4, [job])

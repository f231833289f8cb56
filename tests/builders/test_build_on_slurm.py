"""`hpcbinder build --on slurm`: fetched here, made on a node of a real Slurm whose network leads nowhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from waiting import eventually

from hpcbinder import elsewhere
from hpcbinder.errors import BuildError, FetchError
from images import Line
from rig import Apptainer, Slurm

# Packages of no other test: their wheels are squashed here.
REQUIREMENTS = "colour==0.1.5\nprettytable==3.12.0\n"


@dataclass(frozen=True)
class Both:
    """What `build --json` printed, as a job and here, and what the first said."""

    job: dict[str, Any]
    here: dict[str, Any]
    said: list[dict[str, Any]]
    bytes_of_job: str


@pytest.fixture(scope="module")
def near(line: Line, slurm: Slurm, apptainer: Apptainer) -> Line:
    """The command line on the login node."""
    path = f"{apptainer.bin}{os.pathsep}{line.environment['PATH']}"
    given = {"PATH": path, "HPCBINDER_BUILD_ENGINE": "none", **slurm.environment}
    # As in tests/builders/test_hybrid.py: packages are squashed once for all tests that compress alike.
    given |= {"HPCBINDER_BUILD_COMPRESSION": "gzip"}
    return replace(line, environment={**line.environment, **given})


@pytest.fixture(scope="module")
def source(near: Line) -> str:
    def change(work: Path) -> None:
        (work / "requirements.txt").write_text(REQUIREMENTS)

    return near.repository("elsewhere", change, of="edited")


def digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if sys.version_info >= (3, 11) else file.read().hex()


@pytest.fixture(scope="module")
def both(near: Line, source: str) -> Both:
    words = ("build", source, "--no-register", "--format", "squashfs", "--json")
    done = near.hpcbinder("--json-logs", *words, "--on", "slurm", "--partition", "debug")
    job = json.loads(done.stdout)
    made = digest(job["formats"]["squashfs"])
    here = near.hpcbinder(*words, "--rebuild")
    return Both(job, json.loads(here.stdout), [json.loads(line) for line in done.stderr.splitlines()], made)


def test_a_node_without_a_network_makes_the_same_image(both: Both, slurm: Slurm) -> None:
    assert both.job["id"] == both.here["id"]
    assert both.bytes_of_job == digest(both.here["formats"]["squashfs"])
    messages = [event["message"] for event in both.said]
    (place,) = [message for message in messages if message.startswith("on n")]
    assert place.startswith(("on n1, ", "on n2, "))
    assert "unfinished files in /tmp/hpcbinder-build-" in place
    fetched = [number for number, event in enumerate(both.said) if event["phase"] == "fetch" and event.get("log")]
    squashing = [number for number, message in enumerate(messages) if message.startswith("squashing")]
    assert max(fetched) < messages.index(place) < min(squashing)


def test_what_the_job_said_is_in_the_log_and_nothing_is_left(both: Both, near: Line) -> None:
    said = near.hpcbinder("logs", both.job["id"], "--previous").stdout
    assert "on n" in said and "every step is data" in said
    assert [path.name for path in (near.folder / "store/tmp").iterdir()] == []
    assert {"build", "convert", "fetch"} <= {name for name, took in both.job["timings"].items() if took}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_build_that_is_given_up_leaves_no_job(near: Line, source: str, number: int, code: int) -> None:
    held = ["sbatch", "--parsable", "--hold", "--wrap=true", "--output=/dev/null"]
    done = subprocess.run(held, env=near.environment, capture_output=True, text=True, check=True)
    # srun(1): waits for the other one, which nobody lets go.
    environment = {**near.environment, "SLURM_DEPENDENCY": f"afterok:{done.stdout.strip()}"}
    store = ["--store", str(near.folder / "store")]
    command = [
        sys.executable,
        "-m",
        "hpcbinder",
        *store,
        "build",
        source,
        "--rebuild",
        "--no-register",
        "--on",
        "slurm",
    ]

    def waits() -> bool:
        queue = ["squeue", "--noheader", "--format=%j %T"]
        said = subprocess.run(queue, env=near.environment, capture_output=True, text=True, check=True).stdout
        return "hpcbinder-build-elsewhere-" in said

    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, cwd=near.folder)
    try:
        assert eventually(waits)
        process.send_signal(number)
        assert process.wait(60) == code
        assert eventually(lambda: not waits())
    finally:
        process.kill()
        process.wait()
        subprocess.run(["scancel", done.stdout.strip()], env=near.environment, check=True)


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"postBuild": "#!/bin/sh\n"}, [], "cannot be built on a node without a network: step postbuild/"),
        (
            {"requirements.txt": "git+https://example.org/x@v1#egg=x\n"},
            ["--no-lock"],
            "without a network: step python/",
        ),
        ({}, ["--engine", "docker"], "docker fetches while it builds"),
        ({}, ["--ntasks", "2"], "a build is one process on one node"),
        ({}, ["--partition", "a b"], "is not the name of a partition"),
    ],
)
def test_what_no_node_can_make(near: Line, files: dict[str, str], options: list[str], message: str) -> None:
    folder = near.folder / "refused"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, text in {"requirements.txt": "colour==0.1.5\n", **files}.items():
        (folder / name).write_text(text)
    if "postBuild" in files:
        (folder / "postBuild").chmod(0o755)
    done = near.hpcbinder("build", str(folder), "--on", "slurm", "--no-register", *options, check=False)
    assert done.returncode in (2, 5), done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_node_says_is_not_believed() -> None:
    assert elsewhere._event(b"[1]") == {}
    assert elsewhere._event(b"[" * 100_000) == {}
    assert elsewhere._event(b'{"phase": 1, "message": "x"}') == {}
    event = elsewhere._event(b'{"phase": "build", "message": "a\\nb\\u001b[31m", "progress": 7}')
    assert event == {"phase": "build", "message": "a b\\x1b[31m", "progress": None, "log": False}
    raised = elsewhere._raised({"kind": "FetchError", "message": "x\ny", "hint": 3})
    assert (type(raised), raised.message, raised.hint) == (FetchError, "x y", "3")
    assert type(elsewhere._raised({"kind": "annotations"})) is BuildError
    assert type(elsewhere._raised({"kind": "__name__"})) is BuildError

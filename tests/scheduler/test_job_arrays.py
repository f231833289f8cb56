"""Job arrays by programs that stand for Slurm's: what they are told, and what they may answer. The real ones are asked
in tests/batch."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from hpcbinder.batch import InJobs, read_run
from hpcbinder.errors import RunError
from hpcbinder.scheduler import Arrays, Resources


def arrays(folder: Path, **scripts: str) -> Arrays:
    for name in ("sbatch", "squeue", "scancel"):
        (folder / name).write_text(f"#!/bin/sh\n{scripts.get(name, '')}\n")
        (folder / name).chmod(0o755)
    return Arrays(environ(folder))


def environ(folder: Path) -> dict[str, str]:
    return {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_CONF": "/conf", "SLURM_JOB_ID": "1", "SBATCH_ACCOUNT": "x"}


def test_one_script_whatever_is_run(tmp_path: Path) -> None:
    folder = tmp_path / "a %a;$(id) b"
    folder.mkdir()
    tell = f'for word; do echo "$word"; done >"{tmp_path}/words"; env >"{tmp_path}/env"; echo "42;cluster"'
    job = arrays(tmp_path, sbatch=tell).submit(
        Resources(time="10"), ["echo", "a b", "$(id)"], count=5, at_once=2, name="n", cwd=Path("/x y"), folder=folder
    )
    assert job == "42"
    words = (tmp_path / "words").read_text().splitlines()
    assert "--array=0-4%2" in words
    assert words[words.index(str(folder / "job.sh")) :] == [
        str(folder / "job.sh"),
        str(folder),
        "/x y",
        "echo",
        "a b",
        "$(id)",
    ]
    # Only what leads to the cluster goes along of this job's own variables.
    told = (tmp_path / "env").read_text()
    assert "SLURM_CONF=/conf" in told
    assert "SLURM_JOB_ID" not in told and "SBATCH_ACCOUNT" not in told


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo; echo 'x'", "which job it is"),
        ("echo 'sbatch: error: Invalid job array specification' >&2; exit 1", r"sbatch: Invalid job.*MaxArraySize"),
        ("exit 1", "sbatch: "),
    ],
)
def test_a_slurm_that_takes_no_job(tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(RunError) as caught:
        arrays(tmp_path, sbatch=script).submit(
            Resources(), ["true"], count=1, at_once=0, name="n", cwd=tmp_path, folder=tmp_path
        )
    assert re.search(message, str(caught.value))


def test_states_of_tasks(tmp_path: Path) -> None:
    lines = "0|PENDING|Priority\\n1|RUNNING|None\\nN/A|COMPLETED|None\\n2|TIMEOUT|TimeLimit\\nodd\\n\\n3|"
    found = arrays(tmp_path, squeue=f"printf '{lines}'").states("7")
    assert {number: (state.state, state.reason) for number, state in found.items()} == {
        0: ("PENDING", "Priority"),
        1: ("RUNNING", ""),
        2: ("TIMEOUT", "TimeLimit"),
    }
    assert found[0].waits and found[1].runs and not found[2].runs


def test_a_job_that_is_forgotten_is_no_error_and_silence_is_one(tmp_path: Path) -> None:
    gone = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    assert arrays(tmp_path, squeue=gone).states("7") == {}
    with pytest.raises(RunError, match="Unable to contact"):
        arrays(tmp_path, squeue="echo 'Unable to contact slurm controller' >&2; exit 1").states("7")


@pytest.mark.parametrize("job", ["", "1 2", "--me", "1\n", "７"])
def test_only_ids_are_asked_for(tmp_path: Path, job: str) -> None:
    with pytest.raises(RunError, match="not the id"):
        arrays(tmp_path).cancel(job)


def test_no_slurm(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="sbatch is not on PATH"):
        Arrays({"PATH": str(tmp_path)})


@pytest.mark.parametrize(
    ("result", "said", "state", "reason"),
    [
        ({}, "0|PENDING|Priority", "waiting", "Priority"),
        ({"state": "running"}, "0|RUNNING|None", "running", ""),
        ({"state": "done"}, "0|RUNNING|None", "done", ""),
        ({}, "0|CANCELLED|None", "cancelled", "its job was cancelled"),
        ({"state": "failed", "error": {"name": "Stopped"}}, "0|TIMEOUT|TimeLimit", "failed", "the job's time was over"),
        ({"state": "failed", "error": {"name": "Stopped"}}, "0|CANCELLED|None", "cancelled", "its job was cancelled"),
        ({"state": "running"}, "0|OUT_OF_MEMORY|None", "lost", "the job's memory was used up"),
        ({"state": "running"}, "", "lost", "it left no word of itself"),
    ],
)
def test_what_a_task_and_slurm_say_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: dict[str, Any], said: str, state: str, reason: str
) -> None:
    arrays(tmp_path, squeue=f"echo '{said}'")
    own = tmp_path / ".hpcbinder" / "results"
    own.mkdir(parents=True)
    task = {"name": "a", "notebook": "a.ipynb", "parameters": {}, "note": ""}
    (tmp_path / "run.json").write_text(
        json.dumps({"format": 1, "image": "i", "report": False, "repository": "/srv/repo", "tasks": [task]})
    )
    if result:
        (own / "0.json").write_text(json.dumps(result))
    run, tasks = read_run(tmp_path), InJobs("7", environ(tmp_path))
    tasks.look(run, [])
    # What a node wrote may be seen here late: it is waited for a while.
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1000)
    (found,) = tasks.look(run, [])
    assert (found.state.value, found.reason.startswith(reason)) == (state, True), found

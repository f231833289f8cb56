"""What executes a notebook in the image, told to end. The kernel is not a real one (answering_kernel.py): it does
without an image, and always prints when the signal comes; test_notebooks_run.py has real ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from batch_files import cell, notebook

from hpcbinder.batch import inside
from hpcbinder.batch.tools import papermill_archive

EXECUTE = Path(inside.__file__).with_name("execute.py")
KERNEL = [sys.executable, str(Path(__file__).with_name("answering_kernel.py")), "{connection_file}"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of one notebook, whose second cell is to be written."""
    for name in ("results", "inputs"):
        (tmp_path / ".hpcbinder" / name).mkdir(parents=True)
    kernel = {"argv": KERNEL, "language": "python", "display_name": "Answering"}
    task = {"name": "a", "notebook": "a.ipynb", "parameters": {}, "place": None, "input": "0.ipynb", "kernel": kernel}
    run = {"repository": "/srv/repo", "report": False, "papermill": "", "cell_timeout": 0}
    (tmp_path / "run.json").write_text(json.dumps({**run, "tasks": [{**task, "kernel_name": "python3"}]}))
    (tmp_path / "tools.zip").write_bytes(papermill_archive())
    return tmp_path


def said(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / ".hpcbinder/results/0.json").read_bytes())
    except FileNotFoundError:
        return {}
    return found


def started(folder: Path, source: str) -> subprocess.Popen[str]:
    (folder / ".hpcbinder/inputs/0.ipynb").write_bytes(notebook(cell("pass"), cell(source), cell("pass")))
    return subprocess.Popen(
        [sys.executable, str(EXECUTE), str(folder / "run.json"), str(folder / "tools.zip")],
        cwd=folder,
        env={**os.environ, "HPCBINDER_TASK": "0", "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    ("source", "number", "name"),
    [
        ("forever", signal.SIGUSR1, "TimeOver"),
        ("prints", signal.SIGUSR1, "TimeOver"),
        ("prints", signal.SIGTERM, "Stopped"),
    ],
)
def test_a_cell_without_an_end_is_ended_and_what_there_is_is_kept(
    folder: Path, source: str, number: signal.Signals, name: str
) -> None:
    process = started(folder, source)
    try:
        while said(folder).get("cell") != 2 and process.poll() is None:
            time.sleep(0.02)
        time.sleep(0.3)  # it prints by now
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1, output
    assert "Traceback" not in output
    assert said(folder)["state"] == "failed"
    assert said(folder)["error"]["name"] == name
    cells = json.loads((folder / "a.ipynb").read_bytes())["cells"]
    outputs = [out for each in cells for out in each.get("outputs", ())]
    assert outputs[0]["text"] in ("kept\n", ["kept\n"])
    assert [out["ename"] for out in outputs if "ename" in out] == [name]


def test_a_notebook_that_nobody_ends_runs_to_its_end(folder: Path) -> None:
    process = started(folder, "pass")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert said(folder)["state"] == "done"

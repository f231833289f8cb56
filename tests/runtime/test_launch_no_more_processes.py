"""A node where no more processes are to be had (fork(2), EAGAIN): what fails leaves nothing behind, and can be tried
again. That fork fails is made up; a kernel's node goes on living, and so does the launcher without its helper."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from descriptors import none_left

from hpcbinder.runtime.launch.node import serve
from hpcbinder.runtime.launch.values import Command, Helper
from hpcbinder.runtime.launch.workers import Running


@pytest.fixture
def no_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fork)


def node(
    folder: Path, temporary: Path, told: bytes, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[dict[str, Any]], list[Path]]:
    """What a node answers, and in which folders it makes its own; nothing stays open."""
    places = []

    def prepare(description: Mapping[str, Any], connection: str) -> Command:
        places.append(Path(connection).parent.parent)
        return Command(("/bin/true",), {})

    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # as in a process of its own
    commands, tell = os.pipe()
    hear, answers = os.pipe()
    monkeypatch.setattr("hpcbinder.runtime.launch.node._own_streams", lambda: (commands, answers))
    os.write(tell, told)
    os.close(tell)
    with none_left():
        assert serve(folder, prepare) == 0
    os.close(answers)
    os.close(commands)
    with os.fdopen(hear) as lines:
        return [json.loads(line) for line in lines], places


def test_a_kernel_that_cannot_be_started_is_said(
    no_forks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "launch.json").write_text("{}")
    answers, _ = node(tmp_path, tmp_path, b'{"start": {}}\n' * 3, monkeypatch)
    assert answers == [{"failed": "[Errno 11] Resource temporarily unavailable"}] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["launch.json"]


def test_its_connection_file_lies_where_nobody_else_can_change_it(
    no_forks: None, open_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch system's or a site's TMPDIR may be a group's, and not sticky."""
    (open_tmp_path / "launch.json").write_text("{}")
    (open_tmp_path / "temporary").mkdir()
    places = []
    for mode in (0o700, 0o777, 0o1777):
        (open_tmp_path / "temporary").chmod(mode)
        places += node(open_tmp_path, open_tmp_path / "temporary", b'{"start": {}}\n', monkeypatch)[1]
    assert places == [open_tmp_path / "temporary", Path("/tmp"), open_tmp_path / "temporary"]


@pytest.mark.parametrize("fault", ["fork", "bind"])
def test_a_helper_that_cannot_be_started_leaves_nothing(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    folder = tmp_path / "helper"
    if fault == "fork":
        request.getfixturevalue("no_forks")
    else:
        folder = tmp_path / ("x" * 120)  # longer than a socket's path may be
    helper = Helper(str(folder), str(tmp_path / "shared"), True, None, {}, "/", {}, {})
    with none_left(), pytest.raises(OSError, match="unavailable|too long"):
        Running(helper)
    assert list(tmp_path.iterdir()) == []


LAUNCHER = """
import sys
from hpcbinder.runtime.launch import workers
from hpcbinder.runtime.launch.supervise import supervise
from hpcbinder.runtime.launch.values import Command, Helper

def failing(helper):
    raise OSError(28, "No space left on device")

workers.Running = failing
helper = Helper(sys.argv[1], "", True, None, {}, "/", {}, {})
sys.exit(supervise(Command(("/bin/ls", "-lA", sys.argv[1]), {"LC_ALL": "C"}, helper=helper)))
"""


def test_a_command_runs_without_its_helper(tmp_path: Path) -> None:
    """Runtimes show the helper's folder, and refuse one that is not there."""
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, str(tmp_path / "helper")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "total 0\n")
    assert done.stderr == "hpcbinder: no way to the batch system from inside: [Errno 28] No space left on device\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "helper").mkdir()
    helper = Helper(str(tmp_path / "helper"), str(tmp_path / "shared"), True, None, {}, "/", {}, {})
    with pytest.raises(FileExistsError):
        Running(helper)
    assert list(tmp_path.iterdir()) == [tmp_path / "helper"]

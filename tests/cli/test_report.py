"""How progress looks: on a terminal, in plain text, as JSON."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcbinder.cli.report import JsonReporter, PlainReporter


def test_plain_lines_say_the_phase_once(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainReporter() as reporter:
        reporter.phase("build", "image x", 0.1)
        reporter.phase("build", "image x", 0.2)
        reporter.log("build", "output of a tool")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("   build  image x")


def test_verbose_shows_the_tools_output(capsys: pytest.CaptureFixture[str]) -> None:
    PlainReporter(verbose=True).log("build", "evil \x1b[2J\nline")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("| evil \\x1b[2J line")


def test_json_events(capsys: pytest.CaptureFixture[str]) -> None:
    with JsonReporter() as reporter:
        reporter.phase("fetch", 'a "quoted"\nref', 0.5)
        reporter.log("build", "output")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first == {"phase": "fetch", "message": 'a "quoted" ref', "progress": 0.5}
    assert second["log"] is True


def read_all(terminal: int) -> Iterator[bytes]:
    """What is left to read of a terminal that nobody writes to any more; Linux ends it with EIO."""
    try:
        while block := os.read(terminal, 1 << 16):
            yield block
    except OSError:
        os.close(terminal)


def test_a_terminal_shows_phases_and_is_left_clean(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x")
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "hpcbinder", "plan", "--no-lock", str(tmp_path)]
    environment = {k: v for k, v in os.environ.items() if k != "CI"} | {"TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=slave, env=environment, timeout=60)
    os.close(slave)
    shown = b"".join(read_all(master)).decode()
    assert done.returncode == 0
    assert "fetch" in shown
    assert "plan" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back

"""The face: help that is instant, errors that are one line, exit codes that are documented."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpcbinder import errors
from hpcbinder.cli.main import COMMANDS, EXIT_CODES

ROOT = Path(__file__).parent.parent.parent


def hpcbinder(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "hpcbinder", *arguments], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = hpcbinder(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: hpcbinder {command}")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, hpcbinder.cli.main as m\ntry:\n m.main(['--help'])\nexcept SystemExit: pass\nprint(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.split()
    assert not {"docker", "git", "spython", "rich", "zstandard", "deflate", "requests", "asyncio"} & set(loaded)


@pytest.mark.parametrize("arguments", [["nonsense"], ["build"], ["--nonsense"], ["plan", "x", "--format", "nonsense"]])
def test_usage_errors_are_one_line_and_code_2(arguments: list[str]) -> None:
    done = hpcbinder(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "--help" in done.stderr


def test_a_bug_is_one_line_without_debug_and_a_traceback_with_it(tmp_path: Path) -> None:
    program = (
        "import sys, hpcbinder.cli.images as i, hpcbinder.cli.main as m\n"
        "def broken(*a, **k): raise ZeroDivisionError('a bug')\n"
        "i.list_command.callback = broken\nm.main(sys.argv[1:])"
    )
    quiet = subprocess.run([sys.executable, "-c", program, "list"], capture_output=True, text=True)
    assert quiet.returncode == 1
    assert quiet.stderr.count("\n") == 1
    assert "a bug" in quiet.stderr
    loud = subprocess.run([sys.executable, "-c", program, "--debug", "list"], capture_output=True, text=True)
    assert "Traceback" in loud.stderr


def test_json_logs_make_errors_events() -> None:
    done = hpcbinder("--json-logs", "plan", "ext::sh -c true")
    event = json.loads(done.stderr.splitlines()[-1])
    assert (event["phase"], event["exit_code"]) == ("failed", 2)


def test_register_wants_to_know_as_what(tmp_path: Path) -> None:
    done = hpcbinder("--store", str(tmp_path), "register", "x")
    assert done.returncode == 2
    assert "--kernel" in done.stderr


def test_every_exit_code_is_documented() -> None:
    codes = {
        value.exit_code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.HpcbinderError)
    }
    page = (ROOT / "docs" / "cli.md").read_text()
    for code in codes | {0, 130}:
        assert re.search(rf"^  {code}  ", EXIT_CODES, re.MULTILINE)
        assert f"| {code} |" in page


def test_every_command_of_the_readme_exists() -> None:
    used = re.findall(r"^hpcbinder (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert used
    assert set(used) <= set(COMMANDS)

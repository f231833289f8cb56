"""The face: help that is instant, errors that are one line, exit codes that are documented."""

from __future__ import annotations

import json
import os
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


def test_debug_keeps_the_line_and_the_exit_code(tmp_path: Path) -> None:
    done = hpcbinder("--store", str(tmp_path), "show", "x", "--debug")
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("hpcbinder: no image 'x'")
    assert done.returncode == 8


def test_options_of_the_command_that_is_run_are_its_own(tmp_path: Path) -> None:
    done = hpcbinder("--store", str(tmp_path), "run", "x", "python", "--debug", "--json-logs")
    assert done.returncode == 8
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert done.stderr.startswith("hpcbinder: no image 'x'")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["x", "--runtime", "docker", "--", "python", "--array", "x"], 8, "no image 'x'"),
        (["x", "--runtime=nothing", "--", "python"], 2, "--runtime must be one of"),
        (["--on", "slurm", "x", "-n4", "-N", "2", "python"], 8, "no image 'x'"),
        (["x", "-pa=1", "--", "python"], 2, "add --notebook"),
        (["x", "--", "-p", "a=1"], 8, "no image 'x'"),
        (["x", "python", "-p", "a=1"], 8, "no image 'x'"),
        (["x", "--unknown", "python"], 2, "--unknown stands behind x, where the command begins"),
        (["x", "--runtime"], 2, "Option '--runtime' requires an argument"),
    ],
)
def test_options_of_run_may_stand_behind_the_image(tmp_path: Path, words: list[str], code: int, message: str) -> None:
    done = hpcbinder("--store", str(tmp_path), "run", *words)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr


@pytest.mark.parametrize("name", ["auto", "apptainer", "charliecloud", "shifter", "podman-hpc", "docker"])
def test_every_runtime_of_the_help_can_be_asked_for(tmp_path: Path, name: str) -> None:
    assert name in re.sub(r"-\s+", "-", hpcbinder("run", "--help").stdout)
    assert hpcbinder("--store", str(tmp_path), "run", "--runtime", name, "x").returncode == 8


@pytest.mark.parametrize("command", ["config", "list"])
def test_tables_in_files_have_no_trailing_blanks(tmp_path: Path, command: str) -> None:
    done = hpcbinder("--store", str(tmp_path), command)
    assert done.stdout == "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


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


def shell(line: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HPCBINDER_STORE_PATH": str(cwd / "store"), "PROGRAM": sys.executable, **variables}
    environment.pop("PYTHONUNBUFFERED", None)  # buffered output fails late, at exit
    return subprocess.run(["/bin/sh", "-c", line], cwd=cwd, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("arguments", ["list", "config", "plan . --no-lock", "--help"])
def test_without_a_place_to_write_to_nothing_breaks(tmp_path: Path, arguments: str) -> None:
    assert shell(f'"$PROGRAM" -m hpcbinder {arguments} >&-', tmp_path).returncode == 0
    assert shell(f'"$PROGRAM" -m hpcbinder {arguments} 2>&-', tmp_path).returncode == 0


def test_messages_never_go_where_the_result_is_expected(tmp_path: Path) -> None:
    done = shell('"$PROGRAM" -m hpcbinder show nothing --json 2>&-', tmp_path)
    assert (done.returncode, done.stdout) == (8, "")


@pytest.mark.parametrize("arguments", ["list", "config --json", "plan . --no-lock"])
def test_a_full_disk_below_stdout_is_one_line(tmp_path: Path, arguments: str) -> None:
    done = shell(f'"$PROGRAM" -m hpcbinder {arguments} --json-logs >/dev/full', tmp_path)
    last = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == 1
    assert last["message"] == "cannot write: No space left on device"


@pytest.mark.parametrize("arguments", ["plan .", "register x --kernel --prefix p", "build . --prefix p"])
def test_a_working_directory_that_is_gone_is_one_line(tmp_path: Path, arguments: str) -> None:
    done = shell(f'mkdir gone; cd gone; rmdir ../gone; exec "$PROGRAM" -m hpcbinder {arguments}', tmp_path)
    assert "the working directory is gone" in done.stderr
    assert done.returncode == 2


def test_a_repository_as_deep_as_can_be_leaves_nothing_behind(tmp_path: Path) -> None:
    def git(*arguments: str, text: str = "") -> str:
        command = ["git", "-C", str(tmp_path / "repo"), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout.strip()

    subprocess.run(["git", "init", "--quiet", str(tmp_path / "repo")], check=True)
    tree = git("mktree", text=f"100644 blob {git('hash-object', '-w', '--stdin')}\tf\n")
    for _ in range(1200):
        tree = git("mktree", text=f"040000 tree {tree}\ta\n")
    git("update-ref", "HEAD", git("commit-tree", "-m", "x", tree))
    (tmp_path / "tmp").mkdir()
    done = shell(f'"$PROGRAM" -m hpcbinder plan "file://{tmp_path}/repo"', tmp_path, TMPDIR=str(tmp_path / "tmp"))
    assert "nested more than" in done.stderr
    assert done.returncode == 4
    assert list((tmp_path / "tmp").iterdir()) == []

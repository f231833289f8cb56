"""What is decided when a command starts, not when a kernel is registered: GPU, prologue, where the program is."""

from pathlib import Path

import pytest

from hpcbinder.runtime.launch import prologue
from hpcbinder.runtime.launch.gpu import resolve
from hpcbinder.runtime.launch.prologue import environment_after
from hpcbinder.runtime.launch.runtimes import locate
from hpcbinder.runtime.launch.values import LaunchError

HOST = {"PATH": "/usr/bin:/bin", "KEPT": "a\nb", "GONE": "1"}


@pytest.mark.parametrize(
    ("device", "gpu"), [("nvidiactl", "nvidia"), ("nvidia0", "nvidia"), ("kfd", "rocm"), ("null", "none")]
)
def test_the_gpu_is_the_one_of_this_node(device: str, gpu: str, tmp_path: Path) -> None:
    (tmp_path / device).touch()
    assert resolve("auto", tmp_path) == gpu
    assert resolve("none", tmp_path) == "none"


def test_what_the_prologue_exports_counts(capfd: pytest.CaptureFixture[str]) -> None:
    after = environment_after(["export NEW='x y'", "NOT=exported", "unset GONE", "echo loaded"], HOST)
    assert after == {"PATH": "/usr/bin:/bin", "KEPT": "a\nb", "NEW": "x y"}
    assert capfd.readouterr() == ("", "loaded\n")


def test_no_prologue_starts_no_shell() -> None:
    assert environment_after([], {"PATH": "/nowhere"}) == {"PATH": "/nowhere"}


@pytest.mark.parametrize("lines", [["exit 3"], ["false", "true"], ["no-such-command"], ["("]])
def test_a_prologue_that_fails_starts_nothing(lines: list[str]) -> None:
    with pytest.raises(LaunchError, match="prologue failed with exit code"):
        environment_after(lines, HOST)


def test_a_prologue_that_hangs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prologue, "TIMEOUT", 0.3)
    with pytest.raises(LaunchError, match="took longer"):
        environment_after(["sleep 60 & sleep 60"], HOST)


def test_a_program_that_moved_is_found_on_path(tmp_path: Path) -> None:
    (tmp_path / "ch-run").touch(mode=0o755)
    environ = {"PATH": str(tmp_path)}
    assert locate("charliecloud", "/old/ch-run", environ).program == str(tmp_path / "ch-run")
    with pytest.raises(LaunchError, match="/old/apptainer is no longer there, and no apptainer is on PATH"):
        locate("apptainer", "/old/apptainer", environ)

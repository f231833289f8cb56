"""Nothing outlives whom it serves. The commands here are shells; test_kernel_life.py has the real runtimes."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcbinder.runtime.launch.main import main
from hpcbinder.runtime.launch.processes import descendants

START = """
import json, os, sys
from hpcbinder.runtime.launch.supervise import supervise
from hpcbinder.runtime.launch.values import Command
options = json.loads(sys.argv[1])
if options.pop("follow", False):
    options["parent"] = os.getppid()
argv, cleanup, stays = map(json.loads, sys.argv[2:])
sys.exit(supervise(Command(tuple(argv), dict(os.environ), (), tuple(cleanup), stays), **options))
"""

# A daemon that left its session and its parent, as a FUSE server does, and a child that will not end when asked.
STUBBORN = """
(setsid sleep 1234 &)
trap '' TERM
echo started
while :; do sleep 0.05; done
"""


@contextlib.contextmanager
def supervised(
    script: str, *, cleanup: str = "[]", stays: str = "false", options: str = "{}", wrap: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    words = f'["/bin/sh", "-c", {json.dumps(script)}]'
    argv = [*wrap, sys.executable, "-c", START, options, words, cleanup, stays]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            for left in descendants(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(left.pid, signal.SIGKILL)
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def alive(pids: list[int]) -> list[int]:
    def living(pid: int) -> bool:
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        return status[status.rindex(")") + 2] not in "ZX"

    return [pid for pid in pids if living(pid)]


def all_gone(pids: list[int], seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while alive(pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pids)


def below(process: subprocess.Popen[str]) -> list[int]:
    """Keeper, shell, its sleeps, and the daemon: all of them by now."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        pids = [p.pid for p in descendants(process.pid)]
        if len(pids) >= 4:
            return pids
        time.sleep(0.02)
    raise AssertionError(f"only {pids} below {process.pid}")


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_the_exit_code_is_passed_on(script: str, code: int) -> None:
    with supervised(script) as process:
        assert process.wait(120) == code


def test_a_program_that_is_not_there() -> None:
    argv = [sys.executable, "-c", START, "{}", '["/no/such/program"]', "[]", "false"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 127
    assert done.stderr == "hpcbinder: /no/such/program: No such file or directory\n"


def test_daemons_end_with_the_command() -> None:
    with supervised("(setsid sleep 1234 &) ; (setsid sleep 1234 &); echo; read x; exit 3 ") as process:
        line(process)
        assert process.wait(120) == 3
        assert not descendants(process.pid)


@pytest.mark.parametrize("victim", ["stand-in", "keeper", "command"])
def test_sigkill_of_any_one_ends_all(victim: str) -> None:
    with supervised(STUBBORN) as process:
        line(process)
        pids = below(process)
        target = {"stand-in": process.pid, "keeper": pids[0], "command": pids[1]}[victim]
        os.kill(target, signal.SIGKILL)
        assert all_gone([process.pid, *pids])
        assert process.wait(120) in (-9, 137)


def test_sigkill_of_the_front_end_ends_all() -> None:
    # The outer shell is the front end: it starts the stand-in and waits.
    with supervised(STUBBORN, options='{"follow": true}', wrap=("/bin/sh", "-c", '"$@"; :', "sh")) as front_end:
        line(front_end)
        pids = below(front_end)
        front_end.kill()
        assert all_gone(pids)


def test_a_front_end_that_lets_its_command_live() -> None:
    with supervised("echo started; exec sleep 1234", wrap=("/bin/sh", "-c", '"$@"; :', "sh")) as front_end:
        line(front_end)
        stand_in, keeper = [p.pid for p in descendants(front_end.pid)][:2]
        front_end.kill()
        front_end.wait(120)
        time.sleep(0.3)
        assert alive([stand_in, keeper]) == [stand_in, keeper]
        os.kill(stand_in, signal.SIGTERM)
        assert all_gone([stand_in, keeper])


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(signum: signal.Signals) -> None:
    script = f"trap 'exit 42' {signum.name.removeprefix('SIG')}; echo started; while :; do sleep 0.05; done"
    with supervised(script) as process:
        line(process)
        process.send_signal(signum)
        assert process.wait(120) == 42


def test_a_runtime_that_stays_is_not_signalled_itself() -> None:
    # Like ch-run: an interrupt of the runtime would be its end, what it runs is to get it.
    inner = "trap 'echo inner; exit 5' INT; echo started; while :; do sleep 0.05; done"
    outer = f"trap 'echo outer' INT; /bin/sh -c {json.dumps(inner)}; exit $?"
    with supervised(outer, stays="true") as process:
        assert line(process) == "started"
        process.send_signal(signal.SIGINT)
        assert line(process) == "inner"
        assert process.wait(120) == 5


def test_what_a_daemon_keeps_is_cleaned_up(tmp_path: Path) -> None:
    cleanup = json.dumps(["/bin/sh", "-c", f"touch {tmp_path}/cleaned"])
    with supervised("exit 0", cleanup=cleanup) as process:
        process.wait(120)
    assert (tmp_path / "cleaned").exists()


def test_no_core_dumps() -> None:
    with supervised("ulimit -c") as process:
        assert line(process) == "0"


def test_ctrl_c_at_a_terminal_reaches_the_command_once_and_its_answer_counts() -> None:
    script = "trap 'echo got; exit 6' INT; echo started; while :; do sleep 0.05; done"
    pid, terminal = pty.fork()
    if pid == 0:
        words = json.dumps(["/bin/sh", "-c", script])
        os.execv(sys.executable, [sys.executable, "-c", START, '{"terminal": true}', words, "[]", "false"])
    with os.fdopen(terminal, "r+b", buffering=0) as screen:
        assert b"started" in screen.readline()
        screen.write(b"\x03")
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 6
        assert screen.read(100).count(b"got") == 1


def test_a_launcher_without_its_description_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    previous = signal.getsignal(signal.SIGINT)
    try:
        assert main(tmp_path, ["/tmp/kernel.json"]) == 9
    finally:
        signal.signal(signal.SIGINT, previous)
    assert "launch.json" in capfd.readouterr().err

"""Tools end with us, and take what they started with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcbinder import process

SHELL = ["/bin/sh", "-c"]


def alive(pid: int) -> bool:
    """Whether there is such a process; a zombie is none."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_it_sees_the_environment_it_is_given_alone() -> None:
    child = process.start(["/usr/bin/env"], env={"A": "b"})
    assert child.stdout is not None
    assert child.stdout.read() == b"A=b\n"
    assert child.wait() == 0
    process.stop(child)


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_stop_ends_what_it_started_too(trap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_GRACE", 0.5)
    child = process.start([*SHELL, f"{trap}sleep 1000 & echo $!; wait; wait"], env={"PATH": "/usr/bin:/bin"})
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    process.stop(child)
    assert child.returncode < 0
    end = time.monotonic() + 60
    while alive(grandchild) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(grandchild)


def test_stop_of_what_has_ended() -> None:
    child = process.start(["/bin/true"], env={})
    child.wait()
    process.stop(child)
    assert child.returncode == 0


def test_it_does_not_outlive_us() -> None:
    program = (
        "import time; from hpcbinder import process; child = process.start(['/bin/sleep', '1000'], env={}, stdout=None)"
        "; print(child.pid, flush=True); time.sleep(1000)"
    )
    us = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert us.stdout is not None
    child = int(us.stdout.readline())
    assert alive(child)
    us.send_signal(signal.SIGKILL)
    us.wait()
    us.stdout.close()
    end = time.monotonic() + 60
    while alive(child) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(child)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_its_mounts_are_its_own(tmp_path: Path) -> None:
    child = process.start(
        [*SHELL, 'mount -t tmpfs none "$0" && grep -c "$0" /proc/self/mounts', str(tmp_path)],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        private_mounts=True,
    )
    assert child.stdout is not None
    said = child.stdout.read()
    process.stop(child)
    if b"denied" in said or b"not permitted" in said:
        pytest.skip("this root may not mount")
    assert said == b"1\n"
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()

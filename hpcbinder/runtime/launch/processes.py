"""The processes below this one, as /proc shows them (proc(5))."""

# Paths are text here: they become words of a command line.
# ruff: noqa: PTH123, PTH208

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Process:
    """One line of /proc. `dead` is a zombie: it holds nothing any more and waits for its parent."""

    pid: int
    parent: int
    group: int
    dead: bool


def become_subreaper() -> None:
    """Make orphans below this process its children, so that none gets out of sight (prctl(2), Linux 3.4)."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int) -> list[Process]:
    """Every process below `root`, in whatever session, process group or namespace; parents first."""
    children: dict[int, list[Process]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            process = _read(int(name))
            if process is not None:
                children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    pending = [root]
    while pending:
        below = children.pop(pending.pop(), [])
        found += below
        pending += [process.pid for process in below]
    return found


def _read(pid: int) -> Process | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The command's name stands in parentheses and may hold anything.
    state, parent, group = text[text.rindex(b")") + 2 :].split()[:3]
    return Process(pid, int(parent), int(group), state in (b"Z", b"X"))


def send(processes: Iterable[int], signum: int) -> None:
    """Signal each one; gone or not ours is fine."""
    for pid in processes:
        try:
            os.kill(pid, signum)
        except (ProcessLookupError, PermissionError):
            pass


def reap() -> dict[int, int]:
    """Collect children that ended: pid -> exit code, 128 + the signal's number for one that was killed."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        code = os.waitstatus_to_exitcode(status)
        ended[pid] = code if code >= 0 else 128 - code


def end_all(first: Callable[[], list[int]], *, grace: float = 2.0) -> None:
    """End every descendant of this process, and return when none is left.

    Args:
        first: Who is asked to end before the others, so that a FUSE server does not vanish below its readers.
        grace: Seconds between asking (SIGTERM) and not asking any more (SIGKILL).
    """

    def left() -> list[int]:
        reap()
        return [process.pid for process in descendants(os.getpid()) if not process.dead]

    def gone(seconds: float) -> bool:
        end = time.monotonic() + seconds
        pause = 0.005
        while left():
            if time.monotonic() > end:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 0.1)
        return True

    if not left():
        return
    for asked in (first, left):
        pids = asked()
        if pids:
            send(pids, signal.SIGTERM)
            send(pids, signal.SIGCONT)
        if gone(grace / 2):
            return
    # A process may fork while it is killed: again until none is left. What hangs in the kernel (a dead file system)
    # dies when that lets go of it; nobody can wait for that.
    for _ in range(50):
        send(left(), signal.SIGKILL)
        if gone(0.1):
            return

"""What a command costs: wall and CPU seconds and the most memory, of all the processes it starts.

A small program runs the command and is told to inherit what that leaves behind (prctl(2), PR_SET_CHILD_SUBREAPER), so
the kernel's own count for waited-for children (getrusage(2)) misses nothing that was started, whoever it runs as. What
daemons did in the command's name is read from `/proc` before and after.

    python -m benchmarks.convert.meter COMMAND…     (prints JSON on file descriptor 3)
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SUBREAPER = 36  # linux/prctl.h
_LEFT_BEHIND = 10.0  # s that orphans get to end
_EVERY = 0.1  # s between looks at memory
_DAEMONS = ("dockerd", "containerd")
_ROOT = Path(__file__).parent.parent.parent


class CommandError(Exception):
    """A measured command failed; the text says which and how."""


@dataclass(frozen=True)
class Cost:
    """What a command cost.

    Attributes:
        wall: Seconds from its start to its end.
        cpu: CPU seconds, user and system, of all its processes.
        daemon_cpu: CPU seconds of Docker's daemons meanwhile, whoever asked for them.
        peak: Most bytes resident: in one process as the kernel counted, or in all of them at one of ten looks a second,
            whichever is more. Pages that processes share count in each.
        load: The machine's load average of one minute, before.
    """

    wall: float
    cpu: float
    daemon_cpu: float
    peak: int
    load: float


def measure(command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Cost:
    """Run a command to its end.

    Raises:
        CommandError: It failed.
    """
    load = os.getloadavg()[0]
    read, write = os.pipe()
    before = _daemons()
    process = subprocess.Popen(
        [sys.executable, "-S", "-E", __file__, str(write), *command],
        env=env if env is None else dict(env),
        cwd=cwd or _ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[write],
        text=True,
        errors="replace",
    )
    os.close(write)
    output, _ = process.communicate()
    with os.fdopen(read) as file:
        said = file.read()
    daemons = _daemons() - before
    if process.returncode or not said:
        raise CommandError(f"{' '.join(command)}: exit {process.returncode}\n{output[-3000:]}")
    found = json.loads(said)
    return Cost(found["wall"], found["cpu"], daemons, found["peak"], load)


def _daemons() -> float:
    """CPU seconds of Docker's daemons so far, with the children they waited for."""
    ticks = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, _, fields = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue  # it ended meanwhile
            if name in _DAEMONS:
                ticks += sum(int(field) for field in fields.split()[11:15])  # proc_pid_stat(5), utime to cstime
    return ticks / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """All that a process started, and those that these started."""
    found, waiting = [], [pid]
    while waiting:
        try:
            for task in Path(f"/proc/{waiting.pop()}/task").iterdir():
                children = [int(child) for child in (task / "children").read_text().split()]
                found += children
                waiting += children
        except OSError:
            continue
    return found


def resident(pids: Sequence[int]) -> int:
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
    return total * resource.getpagesize()


def _run(command: Sequence[str]) -> tuple[int, dict[str, float]]:
    """The small program: exit status and figures."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    most, ended, myself = 0, threading.Event(), os.getpid()

    def look() -> None:
        nonlocal most
        while not ended.wait(_EVERY):
            most = max(most, resident(descendants(myself)))

    threading.Thread(target=look, daemon=True).start()
    start = time.perf_counter()
    pid = os.posix_spawnp(command[0], list(command), os.environ)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    wall = time.perf_counter() - start
    ended.set()
    left = 0.0
    deadline = time.monotonic() + _LEFT_BEHIND
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.02)
        except ChildProcessError:
            break
    else:
        for orphan in descendants(myself):  # one that means to stay, such as podman's
            try:
                fields = Path(f"/proc/{orphan}/stat").read_text().rpartition(")")[2].split()
                left += sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
            except OSError:
                continue
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = usage.ru_utime + usage.ru_stime + left
    return status, {"wall": wall, "cpu": cpu, "peak": max(most, usage.ru_maxrss * 1024)}


if __name__ == "__main__":
    answer = int(sys.argv[1])
    os.set_inheritable(answer, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command ends by it, and this with that
    status, figures = _run(sys.argv[2:])
    with os.fdopen(answer, "w") as file:
        json.dump(figures, file)
    sys.exit(status if status >= 0 else 128 - status)

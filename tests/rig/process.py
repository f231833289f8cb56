"""Processes that outlive the program which started them: found again, never confused with another, and ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


class RigError(Exception):
    """The rig cannot do this here; the text says why and what to do."""


@dataclass(frozen=True)
class Process:
    """A process by number and by the moment it began, so that a reused number is never taken for it.

    Args:
        pid: The process's number in this PID namespace.
        started: Field 22 of ``/proc/PID/stat``: clock ticks between boot and start.
        boot: ``/proc/sys/kernel/random/boot_id``, for ticks count from a boot.
    """

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Name the process that has this number now.

        Raises:
            ProcessLookupError: there is none, or it is a zombie.
        """
        state = _stat(pid)
        if state is None:
            raise ProcessLookupError(pid)
        return cls(pid, state, _boot())

    @property
    def alive(self) -> bool:
        """Whether it runs. A zombie does not: some machines' PID 1 reaps late or never."""
        return self.boot == _boot() and _stat(self.pid) == self.started

    def children(self) -> list[Process]:
        """Its direct children, oldest first."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, ProcessLookupError, ValueError, IndexError):
                    if int(_fields(int(entry.name))[1]) == self.pid:
                        found.append(Process.of(int(entry.name)))
        return sorted(found, key=lambda child: child.started)

    def signal(self, number: int) -> None:
        """Send a signal, if it is still this process that would get it."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Wait for its end; whether it came within that time."""
        end = time.monotonic() + seconds
        while self.alive:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def stop(self, seconds: float) -> None:
        """Ask it to end, then make it."""
        self.signal(signal.SIGTERM)
        if not self.wait(seconds):
            self.signal(signal.SIGKILL)
            self.wait(10)

    def save(self, path: Path) -> None:
        """Write the process's name to a file, whole or not at all."""
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(asdict(self)))
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Process | None:
        """The process a file names, if it still runs."""
        try:
            process = cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return process if process.alive else None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _fields(pid: int) -> list[str]:
    # The command's name is in brackets and may hold blanks and brackets: what follows the last one is regular.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _stat(pid: int) -> int | None:
    try:
        fields = _fields(pid)
    except (OSError, UnicodeDecodeError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock: two programs that bring the rig up at once do it one after the other."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def mounts_below(folder: Path) -> list[Path]:
    """Mount points at or below a folder in this mount namespace, innermost first."""
    top = str(folder.resolve())
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # proc(5): octal escapes for blank, tab, newline and backslash.
        point = line.split()[4].encode().decode("unicode_escape").encode("latin-1").decode(errors="surrogateescape")
        if point == top or point.startswith(f"{top}/"):
            points.append(Path(point))
    return points[::-1]

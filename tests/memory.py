"""The most memory this process held.

Not `getrusage`: its `ru_maxrss` survives exec, so that a child of a large process looks large (Linux, fs/exec.c).
"""

from __future__ import annotations

from pathlib import Path


def peak() -> int:
    """Peak resident memory, KiB (proc_pid_status(5), VmHWM)."""
    return _field("VmHWM")


def start() -> int:
    """Forget the peak (proc_pid_clear_refs(5), value 5) and return what is resident now, KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _field("VmRSS")


def _field(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise AssertionError(name)

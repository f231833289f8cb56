"""Starting a tool that must not outlive us, and ending it with everything it started."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_GRACE = 15.0
"""Seconds a tool gets to clean up behind itself before it is killed."""


def usable_cores() -> int:
    """How many cores this process may use: its share of the machine where the system tells, else all there are."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: int | IO[Any] | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = subprocess.PIPE,
    stderr: int | IO[Any] | None = subprocess.STDOUT,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    ending: signal.Signals = signal.SIGTERM,
    private_mounts: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a tool in a session of its own; it gets a signal when the calling *thread* ends, however that happens.

    Args:
        env: Its whole environment.
        ending: That signal.
        private_mounts: What it mounts goes away with it, where we may say so (root may); else it is as always.

    Raises:
        OSError: It cannot be started.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    prctl, unshare, mount = libc.prctl, libc.unshare, libc.mount
    parent = os.getpid()

    def tie() -> None:
        # Runs between fork and exec: nothing here may take a lock.
        prctl(_PR_SET_PDEATHSIG, ending)
        if os.getppid() != parent:
            os._exit(1)
        if private_mounts and unshare(_CLONE_NEWNS) == 0:
            mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)

    return subprocess.Popen(
        list(argv),
        env=dict(env),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        pass_fds=pass_fds,
        start_new_session=True,
        preexec_fn=tie,
    )


def stop(process: subprocess.Popen[bytes], ending: signal.Signals = signal.SIGTERM) -> None:
    """End a tool of `start` that is still running, and what it started; returns when it is gone.

    Args:
        ending: What it is asked with; it is killed if it does not heed that within some seconds.
    """
    for sign, patience in ((ending, _GRACE), (signal.SIGKILL, _GRACE)):
        if process.poll() is not None:
            break
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            pass
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            try:
                stream.close()
            except OSError:
                pass

"""Running a command so that nothing of it outlives whom it serves.

Three processes::

    front end ── stand-in ──pipe── keeper ── runtime ── … payload
                                        └─── whatever the runtime left behind (squashfuse_ll)

The *stand-in* is whom the front end started, signals and kills. The *keeper* has a session of its own, is the parent
of all orphans below it and reads the pipe: when the stand-in is gone, however it died, the pipe ends, and the keeper
ends everything. The stand-in does the same, should the keeper be killed. PR_SET_PDEATHSIG would not do: a runtime's
change of credentials clears it, and it says nothing to a FUSE server that was started by somebody else.
"""

from __future__ import annotations

import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from .processes import become_subreaper, descendants, end_all, reap, send
from .values import Command

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
_CLEANUP_TIMEOUT = 20.0


def supervise(
    command: Command, *, terminal: bool = False, parent: int | None = None, control: int | None = None
) -> int:
    """Run a command to its end and leave nothing of it behind.

    Changes this process: it becomes a subreaper, its signal handlers are replaced, core dumps are off.

    Args:
        command: What to run.
        terminal: True if a person sits at a terminal: the command then stays in this process group, so that the
            terminal reaches it (job control, Ctrl-C). Otherwise it gets a session of its own.
        parent: The parent of this process, if the command is to end when that one does.
        control: Descriptor from which numbers of signals to pass on are read, a byte each; the command ends when it
            does.

    Returns:
        The command's exit code, 128 + the signal's number if it was killed, 127 if it could not be started.
    """
    # A FUSE server that dies first makes its readers die of SIGBUS, and a core dump of a kernel fills a quota.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    become_subreaper()
    sys.stdout.flush()
    sys.stderr.flush()
    helping = _helping(command)
    read_end, write_end = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        code = 70
        try:
            os.close(write_end)
            code = _keep(command, read_end, terminal)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(read_end)
    return _stand_in(keeper, write_end, terminal, parent, control, helping)


def _helping(command: Command) -> Callable[[], None]:
    """Start the command's helper, if it has one; returns what ends it."""
    if command.helper is None:
        return lambda: None
    from .workers import Running

    folder = command.helper.folder
    try:
        return Running(command.helper).finish
    except (OSError, ValueError) as error:
        print(f"hpcbinder: no way to the batch system from inside: {error}", file=sys.stderr, flush=True)
    try:
        # The runtime is told to show it all the same.
        Path(folder).mkdir(0o700)
    except OSError:
        return lambda: None
    return lambda: shutil.rmtree(folder, ignore_errors=True)


class _Signals:
    """Signals as bytes to wait for. The handlers stay until the process ends: it lives for this one command."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self.read_end, write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        os.set_blocking(write_end, False)
        for number in (*numbers, signal.SIGCHLD):
            signal.signal(number, _nothing)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)

    def take(self) -> bytes:
        try:
            return os.read(self.read_end, 512)
        except BlockingIOError:
            return b""


def _nothing(signum: int, frame: FrameType | None) -> None: ...


def _stand_in(
    keeper: int,
    write_end: int,
    terminal: bool,
    parent: int | None,
    control: int | None,
    helping: Callable[[], None],
) -> int:
    signals = _Signals(*_PASSED_ON)
    waiting = select.poll()
    waiting.register(signals.read_end, select.POLLIN)
    front_end = _watch(parent)
    if front_end is not None:
        waiting.register(front_end, select.POLLIN)
    if control is not None:
        waiting.register(control, select.POLLIN)
    code = None
    while code is None:
        if parent is not None and os.getppid() != parent:
            parent = None
            if front_end is not None:
                waiting.unregister(front_end)
            if write_end >= 0:
                os.close(write_end)
                write_end = -1
        # Without pidfd_open (Linux < 5.3) the parent is looked at once a second.
        ready = dict(waiting.poll(1000 if parent is not None and front_end is None else None))
        told = b""
        if control is not None and control in ready:
            told = os.read(control, 512)
            if not told:
                waiting.unregister(control)
                control = None
                if write_end >= 0:
                    os.close(write_end)
                    write_end = -1
        for signum in told + signals.take():
            # A terminal's Ctrl-C reached everybody already.
            if signum in _PASSED_ON and write_end >= 0 and not (terminal and signum in _FROM_TERMINAL):
                try:
                    os.write(write_end, bytes([signum]))
                except BrokenPipeError:
                    pass
        code = reap().get(keeper)
    helping()
    end_all(lambda: [])
    return code


def _watch(parent: int | None) -> int | None:
    """A descriptor that becomes readable when `parent` ends, None where there is no such thing."""
    if parent is None:
        return None
    try:
        return os.pidfd_open(parent)
    except OSError:
        return None


def _keep(command: Command, read_end: int, terminal: bool) -> int:
    if not terminal:
        os.setsid()
    become_subreaper()
    signals = _Signals(*_PASSED_ON)
    child = os.fork()
    if child == 0:
        _execute(command, terminal)
    waiting = select.poll()
    waiting.register(read_end, select.POLLIN)
    waiting.register(signals.read_end, select.POLLIN)
    code = None
    while code is None:
        ready = dict(waiting.poll())
        signals.take()
        code = reap().get(child)
        if read_end in ready and code is None:
            numbers = os.read(read_end, 512)
            if not numbers:
                code = _by_itself(child, command.lingers)
                break
            for signum in numbers:
                send(_payload(command, child, signum), signum)
    end_all(lambda: [] if code is not None else _payload(command, child, signal.SIGTERM))
    _clean_up(command)
    return 128 + signal.SIGKILL if code is None else code


def _by_itself(child: int, seconds: float) -> int | None:
    """The exit code of a child that ends within so many seconds, None if it does not."""
    end = time.monotonic() + seconds
    code = reap().get(child)
    while code is None and time.monotonic() < end:
        time.sleep(0.02)
        code = reap().get(child)
    return code


def _execute(command: Command, terminal: bool) -> None:
    """The child's side of the fork: become the runtime."""
    try:
        if not terminal:
            os.setpgid(0, 0)
        for number in (*_PASSED_ON, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execve(command.argv[0], command.argv, dict(command.env))
    except OSError as error:
        print(f"hpcbinder: {command.argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)


def _payload(command: Command, child: int, signum: int) -> list[int]:
    """Who gets a signal.

    Natively a front end signals the kernel's whole process group. A runtime that stays as the payload's parent is left
    out: ch-run takes SIGINT as the end of its file system, and Apptainer would pass a second one on.
    """
    group = os.getpgid(child)
    below = [p.pid for p in descendants(child) if p.group == group and not p.dead]
    if not command.stays:
        return [child, *below]
    if below or signum == signal.SIGINT:
        return below
    return [child]


def _clean_up(command: Command) -> None:
    if not command.cleanup:
        return
    try:
        subprocess.run(
            command.cleanup,
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_CLEANUP_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        pass

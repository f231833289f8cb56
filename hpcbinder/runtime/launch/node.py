"""A kernel on the node of a job: `python launch.py --node`, its commands on standard input, its answers on output.

Commands are JSON objects, a line each: `{"start": CONNECTION}` (the connection file without address and ports) and
`{"signal": NUMBER}`; `{"kill": true}` ends the kernel, the end of input ends all. Answers are lines, too:
`{"started": {"ip": …, "shell_port": …, …}}`, `{"ended": EXIT CODE}` and `{"failed": WHY}`. So no secret is ever in a
file that other nodes see, nor in an argument. A kernel that is started again has the address and ports of the one
before: its clients need not learn of it.
"""

# Paths are text here: they become words of a command line.
# ruff: noqa: PTH118

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .network import address
from .pipes import pipes
from .supervise import supervise
from .values import Command, LaunchError

PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
_LINE = 1 << 16

Prepare = Callable[[Mapping[str, Any], str], Command]
"""(description, connection file) -> the command that starts the kernel."""

_LINGER = 20
"""Seconds without a kernel after which the job is given up: nobody starts another."""


def serve(folder: Path, prepare: Prepare) -> int:
    """Run kernels until the end of input.

    Args:
        folder: Where launch.json lies.
        prepare: Says how one is started.

    Returns:
        The last kernel's exit code.
    """
    commands, answers = _own_streams()
    from .state import stays  # other kernels need not wait for it to be imported

    temporary = tempfile.gettempdir()
    place = tempfile.mkdtemp(prefix="hpcbinder-kernel-", dir=temporary if stays(temporary) else "/tmp")
    try:
        node = _Node(folder, place, prepare, answers)
        try:
            return node.run(commands)
        finally:
            # Also when the job is cancelled: what is left behind this task is killed, a helper that ends jobs too.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            node.close()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _own_streams() -> tuple[int, int]:
    """Standard input and output for this program alone: a kernel must not read commands, nor forge answers."""
    commands, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return commands, answers


class _Node:
    def __init__(self, folder: Path, place: str, prepare: Prepare, answers: int) -> None:
        self._folder = folder
        self._connection = os.path.join(place, "kernel.json")
        self._prepare = prepare
        self._answers = answers
        self._where: dict[str, Any] = {}
        self._kernel = 0
        self._control = -1
        self._alive: Any = None
        self._code = 0

    def run(self, commands: int) -> int:
        waiting = select.poll()
        waiting.register(commands, select.POLLIN)
        text = b""
        while True:
            watched = self._alive.fileno() if self._alive else None
            if watched is not None:
                waiting.register(watched, select.POLLIN)
            ready = dict(waiting.poll(None if watched is not None else _LINGER * 1000))
            if watched is not None:
                waiting.unregister(watched)
                if watched in ready:
                    self._ended()
            elif not ready:
                return self._code
            if commands not in ready:
                continue
            data = os.read(commands, 4096)
            text += data
            if not data or len(text) > _LINE:
                self._kill()
                return self._code
            *lines, text = text.split(b"\n")
            for line in lines:
                self._obey(json.loads(line))

    def close(self) -> None:
        """End the kernel, if there is one."""
        self._kill()

    def _obey(self, command: Mapping[str, Any]) -> None:
        if "start" in command:
            self._kill()
            try:
                self._start(command["start"])
            except (LaunchError, OSError, ValueError) as error:
                self._say({"failed": str(error)})
        elif command.get("kill"):
            self._kill()
        elif self._kernel and "signal" in command:
            os.write(self._control, bytes([command["signal"]]))

    def _start(self, connection: Mapping[str, Any]) -> None:
        self._where = self._where or _free_place()
        descriptor = os.open(self._connection, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({**connection, **self._where, "transport": "tcp"}, file)
        description = json.loads((self._folder / "launch.json").read_text(encoding="utf-8"))
        command = self._prepare(description, self._connection)
        with pipes(2) as (read_end, control, over, alive):
            kernel = os.fork()
        if kernel == 0:
            code = 70
            try:
                os.close(control)
                os.close(over)
                # `alive` is held open by this process alone, which has it closed on exec: it ends with it.
                code = supervise(command, control=read_end)
            finally:
                os._exit(code)
        os.close(read_end)
        os.close(alive)
        self._kernel, self._control = kernel, control
        self._alive = os.fdopen(over, "rb")
        self._say({"started": self._where})

    def _kill(self) -> None:
        if self._kernel:
            os.close(self._control)  # the end of it ends whoever reads it, and all below
            self._control = -1
            self._alive.read()
            self._ended()

    def _ended(self) -> None:
        _, status = os.waitpid(self._kernel, 0)
        self._code = os.waitstatus_to_exitcode(status)
        if self._code < 0:
            self._code = 128 - self._code
        self._kernel = 0
        self._alive.close()
        self._alive = None
        if self._control >= 0:
            os.close(self._control)
            self._control = -1
        self._say({"ended": self._code})

    def _say(self, answer: Mapping[str, Any]) -> None:
        try:
            os.write(self._answers, json.dumps(answer).encode() + b"\n")
        except BrokenPipeError:
            pass  # who asked is gone, and the end of input comes next


def _free_place() -> dict[str, Any]:
    """An address of this node that the one who started the job reaches, and ports that are free there."""
    place: dict[str, Any] = {"ip": address(os.environ.get("SLURM_LAUNCH_NODE_IPADDR", ""))}
    held = []
    for name in PORTS:
        listener = socket.socket()
        listener.bind((place["ip"], 0))
        place[name] = listener.getsockname()[1]
        held.append(listener)
    for listener in held:
        listener.close()
    return place


def main(folder: Path, prepare: Prepare) -> int:
    """Run kernels for whoever started the job; see `serve`."""
    # An impatient front end may interrupt before there is anything to interrupt.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A job that is cancelled leaves no connection file behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    return serve(folder, prepare)

"""The start of a registered kernel, `python launch.py CONNECTION_FILE`, or of a job's task, `python launch.py`; what to
run stands in launch.json beside it. A kernel on another node has a job of its own (`job`, `node`), a hub's server too
(`server`)."""

# Paths are text here: they become words of a command line.
# ruff: noqa: PTH100, PTH109

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import job, node
from .starting import EXIT_CODE, prepare
from .supervise import supervise
from .values import Command, LaunchError


def main(folder: Path, arguments: Sequence[str]) -> int:
    """Run the kernel or the command described in `folder`.

    Args:
        folder: Where launch.json lies.
        arguments: The connection file's path, for a kernel; nothing for a command; `--job NAME` and `--node` for both
            ends of a kernel on another node; `--server` for one that a hub sent; `--command` and the words of another
            command than the description's own, for a module.

    Returns:
        The exit code.
    """
    parent = os.getppid()
    # An impatient front end may interrupt before there is anything to interrupt.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if arguments[:1] == ["--job"]:
            return job.main(folder, arguments[1])
        if arguments == ["--node"]:
            return node.main(folder, _kernel)
        if arguments == ["--server"]:
            from . import server  # a kernel need not wait for what HTTP takes to be imported

            return server.main(folder, prepare)
        description = json.loads((folder / "launch.json").read_text(encoding="utf-8"))
        if arguments[:1] == ["--command"]:
            return _command(description, arguments[1:])
        if arguments:
            command = _kernel(description, arguments[0])
        else:
            command = prepare(description, environ=os.environ, cwd=os.getcwd())
    except (LaunchError, OSError, ValueError) as error:
        print(f"hpcbinder: {error}", file=sys.stderr)
        return EXIT_CODE
    for note in command.notes:
        print(f"hpcbinder: {note}", file=sys.stderr)
    if not arguments:
        return supervise(command, parent=parent)
    # A front end that wants its kernel to survive it leaves JPY_PARENT_PID out (jupyter_client/launcher.py).
    return supervise(command, parent=parent if "JPY_PARENT_PID" in os.environ else None)


def _command(description: Mapping[str, Any], argv: Sequence[str]) -> int:
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    command = prepare(description, environ=os.environ, cwd=os.getcwd(), argv=argv, interactive=terminal)
    for note in command.notes:
        print(f"hpcbinder: {note}", file=sys.stderr)
    return supervise(command, terminal=terminal)


def _kernel(description: Mapping[str, Any], connection_file: str) -> Command:
    # 1: "somebody looks after you". ipykernel then neither polls a parent that, in a container, is never the one it was
    # told of, nor takes itself for one that was started by hand (ipykernel/kernelapp.py, init_poller).
    looked_after = {**description, "env": {"JPY_PARENT_PID": "1", **description["env"]}}
    return prepare(
        looked_after, environ=os.environ, cwd=os.getcwd(), files={"connection_file": os.path.abspath(connection_file)}
    )

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
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import job, node
from .environment import allowed, host_environment
from .gpu import resolve, shortcoming
from .pinned import only_there, searched_elsewhere
from .prologue import environment_after
from .runtimes import locate
from .supervise import supervise
from .values import Command, Image, LaunchError, Request, parse_bind

FORMAT = 1
"""Of launch.json."""

EXIT_CODE = 9
"""When nothing was started; hpcbinder's "no runtime here can run the image"."""


def prepare(
    description: Mapping[str, Any],
    *,
    environ: Mapping[str, str],
    cwd: str,
    argv: Sequence[str] | None = None,
    files: Mapping[str, str] | None = None,
    interactive: bool = False,
) -> Command:
    """Turn a description into a command for this machine at this moment.

    Args:
        description: `format`, `runtime`, `program`, `image` {id, location, entrypoint, env, mount_points}, `argv`,
            `env`, `binds`, `environment`, `gpu`, `prologue`, `needs` {gpu, cuda}, `files` (as below), `slurm`
            {inside, asked, accounts} (`workers`) and `folder` {path, inode, above} (`pinned`) where there are any;
            hpcbinder.runtime.describing makes it.
        environ: The environment of whom it is run for.
        cwd: Absolute working directory; `folder` counts more.
        argv: The command, the description's own if None.
        files: Name -> path of files that `{name}` in argv stands for.
        interactive: A person sits at a terminal.

    Raises:
        LaunchError: It cannot be run here.
    """
    if description.get("format") != FORMAT:
        raise LaunchError("launch.json is of another version of hpcbinder: register the kernel again")
    environ = environment_after(description["prologue"], host_environment(environ))
    runtime = locate(description["runtime"], description["program"], environ)
    gpu = resolve(description["gpu"])
    if gpu != "none" and description["gpu"] == "auto" and runtime.name == "charliecloud":
        gpu = "none"
    image = description["image"]
    words = tuple(description["argv"] if argv is None else argv)
    folder = description.get("folder")
    cwd = cwd if folder is None else folder["path"]
    needed = {**description.get("files", {}), **(files or {})}
    assistant = None
    if "slurm" in description and runtime.name != "docker":  # whose daemon may be elsewhere
        from . import workers  # most of what is run asks the batch system for nothing

        assistant = workers.offered(description, environ, cwd, runtime.name)
        if assistant is not None:
            words, found = workers.shown(assistant, words)
            needed.update(found)
    entrypoint, env = image["entrypoint"], description["env"]
    if folder is not None:
        environ = {**environ, **searched_elsewhere(environ)}
        seen = {**image["env"], **allowed(environ, description["environment"], image["env"]), **env}
        env = {**env, **searched_elsewhere(seen)}
        words, entrypoint = only_there(folder, (*((entrypoint,) if entrypoint else ()), *words)), ""
    command = runtime.command(
        Image(
            id=image["id"],
            location=image["location"],
            entrypoint=entrypoint,
            env=image["env"],
            mount_points=tuple(image["mount_points"]),
        ),
        Request(
            argv=words,
            cwd=cwd,
            environ=environ,
            environment=tuple(description["environment"]),
            binds=tuple(map(parse_bind, description["binds"])),
            later=assistant.client.binds if assistant is not None and assistant.client is not None else (),
            gpu=gpu,
            files=needed,
            env=env,
            interactive=interactive,
        ),
    )
    lacking = shortcoming(description.get("needs", {}), gpu)
    notes = (*command.notes, *([lacking] if lacking else []), *(assistant.notes if assistant is not None else ()))
    return replace(command, notes=notes, helper=assistant)


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

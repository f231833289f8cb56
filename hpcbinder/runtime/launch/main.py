"""A registered kernel's start: `python launch.py CONNECTION_FILE`, with what to run in launch.json beside it."""

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

from .environment import host_environment
from .gpu import resolve
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
            `env`, `binds`, `environment`, `gpu`, `prologue`; hpcbinder.runtime.description makes it.
        environ: The environment of whom it is run for.
        cwd: Absolute working directory.
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
    return runtime.command(
        Image(
            id=image["id"],
            location=image["location"],
            entrypoint=image["entrypoint"],
            env=image["env"],
            mount_points=tuple(image["mount_points"]),
        ),
        Request(
            argv=tuple(description["argv"] if argv is None else argv),
            cwd=cwd,
            environ=environ,
            environment=tuple(description["environment"]),
            binds=tuple(map(parse_bind, description["binds"])),
            gpu=gpu,
            files=files or {},
            env=description["env"],
            interactive=interactive,
        ),
    )


def main(folder: Path, arguments: Sequence[str]) -> int:
    """Run the kernel described in `folder`.

    Args:
        folder: Where launch.json lies.
        arguments: The connection file's path.

    Returns:
        The exit code.
    """
    parent = os.getppid()
    # An impatient front end may interrupt before there is anything to interrupt.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        description = json.loads((folder / "launch.json").read_text(encoding="utf-8"))
        # 1: "somebody looks after you". ipykernel then neither polls a parent that, in a container, is never the one
        # it was told of, nor takes itself for one that was started by hand (ipykernel/kernelapp.py, init_poller).
        description["env"] = {"JPY_PARENT_PID": "1", **description["env"]}
        command = prepare(
            description,
            environ=os.environ,
            cwd=os.getcwd(),
            files={"connection_file": os.path.abspath(arguments[0])},
        )
    except (LaunchError, OSError, ValueError) as error:
        print(f"hpcbinder: {error}", file=sys.stderr)
        return EXIT_CODE
    for note in command.notes:
        print(f"hpcbinder: {note}", file=sys.stderr)
    # A front end that wants its kernel to survive it leaves JPY_PARENT_PID out (jupyter_client/launcher.py).
    return supervise(command, parent=parent if "JPY_PARENT_PID" in os.environ else None)

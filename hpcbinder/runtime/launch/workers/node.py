"""A worker on the node of its job, started by what `jobs` submits."""

# Paths are text here: they become words of a command line.
# ruff: noqa: PTH109

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..space import in_folder
from ..starting import EXIT_CODE, prepare
from ..supervise import supervise
from ..values import Command, LaunchError

_TOLD = re.compile(r"[0-9a-f]{16}")


def main(folder: Path, arguments: Sequence[str]) -> int:
    """Run one worker on a node of a job: `launch.py NAME`; or any command in the image: `launch.py --in-image CMD...`,
    for who writes job scripts that hold one (dask-jobqueue).

    Returns:
        The exit code.
    """
    parent = os.getppid()
    try:
        command = _command(folder, arguments)
    except (LaunchError, OSError, ValueError, KeyError) as error:
        print(f"hpcbinder: {error}", file=sys.stderr)
        return EXIT_CODE
    for note in command.notes:
        print(f"hpcbinder: {note}", file=sys.stderr)
    return supervise(command, parent=parent)


def _command(folder: Path, arguments: Sequence[str]) -> Command:
    description = json.loads((folder / "launch.json").read_text(encoding="utf-8"))
    told: Mapping[str, Any] = {"argv": list(arguments[1:]), "secrets": {}}
    if arguments[:1] == ["--in-image"]:
        description = in_folder(description, os.getcwd())
    else:
        if len(arguments) != 1 or not _TOLD.fullmatch(arguments[0]):
            raise LaunchError("not the name of a worker")
        told = json.loads((folder / arguments[0]).read_text(encoding="utf-8"))
    # As variables of the host that are let in: no runtime shows those in its arguments.
    description["environment"] = [*description["environment"], *told["secrets"]]
    return prepare(description, environ={**os.environ, **told["secrets"]}, cwd=os.getcwd(), argv=told["argv"])

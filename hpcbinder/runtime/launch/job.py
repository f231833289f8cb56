"""The job that a kernel on another node runs in: `python launch.py --job NAME`, with what it asks for in job.json.

It ends with whoever started it, in the queue as well as on the node.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

from .environment import for_nodes, host_environment
from .prologue import environment_after
from .supervise import supervise
from .values import Command, LaunchError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_LINGERS = 10.0
"""Seconds that a node has to end a kernel."""


def main(folder: Path, name: str) -> int:
    """Run `launch.py --node` as a job; returns its exit code.

    Args:
        folder: Where job.json lies: `{"options": [words for srun], "prologue": [lines]}`.
        name: The job's name.

    Raises:
        LaunchError: There is no srun, or a name that no job has.
        OSError, ValueError: job.json cannot be read.
    """
    if not _NAME.fullmatch(name):
        raise LaunchError("not a name for a job")
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    environ = for_nodes(environment_after(job["prologue"], host_environment(os.environ)))
    srun, scancel = (shutil.which(program, path=environ.get("PATH", os.defpath)) for program in ("srun", "scancel"))
    if srun is None or scancel is None:
        raise LaunchError("there is no Slurm here: srun is not on PATH")
    node = [sys.executable, "-I", "-S", str(folder / "launch.py"), "--node"]
    options = [f"--job-name={name}", "--mpi=none", "--unbuffered", *job["options"]]
    # An srun that is killed leaves its allocation behind (slurm.conf(5), InactiveLimit). One that is asked to end has
    # its tasks killed, so the node learns first that its input is over: it also ends what the kernel has asked for.
    cancel = (scancel, "--quiet", f"--name={name}")
    command = Command((srun, *options, "--", *node), environ, cleanup=cancel, lingers=_LINGERS)
    return supervise(command, parent=os.getppid())

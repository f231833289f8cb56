"""The site's shell lines (`module load apptainer`) that come before the runtime."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from .values import LaunchError

TIMEOUT = 120.0
"""Seconds; module systems on a cold parallel file system are slow."""


def environment_after(lines: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Run the lines in one `/bin/sh -e` and return the environment they leave exported.

    What they print goes to standard error.

    Raises:
        LaunchError: A line failed, or they took longer than `TIMEOUT`.
    """
    if not lines:
        return dict(environ)
    script = "\n".join(["exec 3>&1 1>&2", *lines, "exec /usr/bin/env -0 >&3"])
    with subprocess.Popen(
        ["/bin/sh", "-e", "-c", script],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as shell:
        try:
            output, _ = shell.communicate(timeout=TIMEOUT)
        except BaseException as error:
            os.killpg(shell.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise LaunchError(f"the site's prologue took longer than {TIMEOUT:.0f} s") from error
            raise
    if shell.returncode:
        raise LaunchError(f"the site's prologue failed with exit code {shell.returncode}: {'; '.join(lines)}")
    pairs = (os.fsdecode(item).partition("=") for item in output.split(b"\0") if item)
    return {name: value for name, _, value in pairs if name not in ("_", "PWD", "SHLVL")}

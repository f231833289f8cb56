"""What a check finds, and what it has to look with."""

from __future__ import annotations

import enum
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpcbinder import process
from hpcbinder.config import Config, redact
from hpcbinder.text import one_line

_PATIENCE = 8.0
"""Seconds a program gets to say its version."""
_LIMIT = 64 << 10


class Status(str, enum.Enum):
    """How something is."""

    OK = "ok"
    MISSING = "missing"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        topic: What it belongs to: `engine`, `base`, `runtime`, `kernel`, `store`, ….
        name: What was looked at: `docker`, `/dev/fuse`, ….
        status: How it is.
        found: Version, place, state; safe to print.
        advice: What to do about it, "" if nothing.
    """

    topic: str
    name: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Machine:
    """What checks look at. They change nothing.

    Attributes:
        config: The configuration.
        environ: The environment.
        network: Servers that are not ours may be asked.
    """

    config: Config
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    network: bool = False

    def program(self, name: str) -> str | None:
        """Where a program is on PATH; None if it is not there."""
        found = shutil.which(name, path=self.environ.get("PATH", os.defpath))
        return str(Path(found).absolute()) if found else None

    def ask(self, *argv: str, patience: float = _PATIENCE) -> str | None:
        """What a program says, on either stream; None if it cannot be started, fails, or does not end in time.

        It is told to keep its own settings in a folder that goes away: some make one in the home at their first word.
        """
        with tempfile.TemporaryDirectory(prefix="hpcbinder-doctor-") as folder:
            own = dict.fromkeys(("APPTAINER_CONFIGDIR", "SINGULARITY_CONFIGDIR"), folder)
            # ch-run does not say a word without USER
            env = {"USER": "hpcbinder", **self.environ, **own, "LC_ALL": "C.UTF-8"}
            try:
                # Not `process.start`: checks are threads of one process, where nothing may run between fork and exec.
                child = subprocess.Popen(
                    argv,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError:
                return None
            try:
                said, _ = child.communicate(timeout=patience)
            except subprocess.TimeoutExpired:
                return None
            finally:
                process.stop(child, signal.SIGKILL)
        return said[:_LIMIT].decode("utf-8", "replace") if child.returncode == 0 else None

    def version(self, *argv: str) -> str | None:
        """The first line of what a program says of itself, safe to print."""
        said = self.ask(*argv)
        if said is None:
            return None
        return clean(next((line for line in said.splitlines() if line.strip()), ""))


Check = Callable[[Machine], Sequence[Finding]]
"""Looks at one thing, soon, and changes nothing."""


def clean(text: str, limit: int = 300) -> str:
    """Foreign text as a table may show it."""
    return one_line(redact(text.strip()), limit)


def read(path: str) -> str | None:
    """A small file of the system's, None if it is not there or not ours to read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (/proc and /etc by name)
            return file.read(_LIMIT)
    except OSError:
        return None

"""The runs themselves: imports and notebooks, in the image, by programs of ours that are bound into it."""

from __future__ import annotations

import json
import posixpath
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from hpcbinder import contract
from hpcbinder.model import Kernel
from hpcbinder.notebooks import Notebook
from hpcbinder.runtime import Secluded
from hpcbinder.text import one_line
from hpcbinder.verify.judge import Bounds, Happened, Raised

PROGRAMS = f"{contract.STEP_DIR}/step"
"""Where our programs and their tasks are seen, read-only: a folder that every image of ours has, empty."""
RESULTS = f"{contract.STEP_DIR}/work"
"""Where they leave what they found."""

_LIMIT = 8 << 20
"""Bytes of results that are read: the notebook's own code can write there, too."""
_MOST_ERRORS = 1000
_IMPORT_TIME = 300.0
"""Seconds for one import; the first one of a large package reads a whole file system."""
_START_TIME = 300
"""Seconds until a kernel must have answered."""
_GRACE = 30.0
"""Seconds that starting and ending the container may take besides."""
_NO_NBCLIENT = 88
_MOST_STATUS = 1 << 16

_WITH_NBCLIENT = f"""
for python in {contract.SERVER_PREFIX}/bin/python python3 python; do
    if "$python" -c 'import nbclient' 2>/dev/null; then exec "$python" "$@"; fi
done
exit {_NO_NBCLIENT}
"""


@dataclass(frozen=True)
class Tried:
    """What came of trying an import: both empty where it works."""

    error: str
    message: str


class Runs:
    """Runs things on one copy of the repository.

    Args:
        image: What runs commands.
        room: Folder for what is exchanged.
        copy: The copy, which may be written to.
        place: Where it is seen inside: where the image has the repository.
        bounds: What they are held to.
    """

    def __init__(self, image: Secluded, room: Path, copy: Path, place: str, bounds: Bounds) -> None:
        self._image, self._room, self._copy, self._place, self._bounds = image, room, copy, place, bounds
        self._count = 0

    def imports(self, python: str, wanted: Sequence[tuple[str, str]]) -> list[Tried]:
        """Try imports.

        Args:
            python: The interpreter, inside.
            wanted: Modules, and names in them ("" for none).

        Returns:
            What came of each, in the same order; fewer if they could not all be tried in time.
        """
        programs, results = self._folders("probe.py", "wanted.json", [list(pair) for pair in wanted])
        script = 'cd -- "$1"; shift; exec "$@"'
        argv = ["/bin/sh", "-c", script, "sh", self._place, python, f"{PROGRAMS}/probe.py"]
        argv += [f"{PROGRAMS}/wanted.json", f"{RESULTS}/results", f"{_IMPORT_TIME:g}"]
        self._image.run(
            argv,
            seconds=max(self._bounds.notebook, _IMPORT_TIME * 2),
            memory=self._bounds.memory,
            binds=self._binds(programs, results),
        )
        found = []
        for number, line in enumerate(_lines(results / "results")):
            if not (isinstance(line, list) and len(line) == 3 and line[0] == number and number < len(wanted)):
                break
            found.append(Tried(one_line(str(line[1]), 100), one_line(str(line[2]), 500)))
        return found

    def notebook(self, notebook: Notebook, kernel: Kernel, may_fail: Sequence[int]) -> Happened:
        """Run a notebook from its top, through one of the image's kernels."""
        spec = {
            "argv": list(kernel.argv),
            "env": dict(kernel.env),
            "display_name": kernel.display_name,
            "language": kernel.language,
            "interrupt_mode": kernel.interrupt_mode,
        }
        task = {
            "notebook": posixpath.join(self._place, notebook.path),
            "kernel": spec,
            "may_fail": list(may_fail),
            "allow_errors": notebook.allow_errors,
            "cell_timeout": self._bounds.cell,
            "start_timeout": _START_TIME,
        }
        programs, results = self._folders("execute.py", "task.json", task)
        argv = ["/bin/sh", "-c", _WITH_NBCLIENT, "sh", f"{PROGRAMS}/execute.py"]
        argv += [f"{PROGRAMS}/task.json", f"{RESULTS}/results"]
        start = time.monotonic()
        ended = self._image.run(
            argv,
            seconds=self._bounds.notebook + _GRACE,
            memory=self._bounds.memory,
            binds=self._binds(programs, results),
        )
        seconds = time.monotonic() - start
        if ended.code == _NO_NBCLIENT:
            return Happened("nbclient", seconds=seconds)
        return happened(_lines(results / "results"), ended.why, ended.said, seconds)

    def _binds(self, programs: Path, results: Path) -> list[tuple[Path, str, bool]]:
        return [(programs, PROGRAMS, False), (results, RESULTS, True), (self._copy, self._place, True)]

    def _folders(self, program: str, name: str, task: Any) -> tuple[Path, Path]:
        self._count += 1
        programs, results = self._room / f"programs-{self._count}", self._room / f"results-{self._count}"
        programs.mkdir(mode=0o755)
        results.mkdir(mode=0o700)
        text = resources.files("hpcbinder.verify.inside").joinpath(program).read_bytes()
        (programs / program).write_bytes(text)
        (programs / name).write_text(json.dumps(task), encoding="ascii")
        return programs, results


def happened(lines: Sequence[Any], why: str, said: str, seconds: float) -> Happened:
    """What the events of a run come to.

    Args:
        lines: What `inside/execute.py` wrote; anything, if the notebook's code wrote there.
        why: `time` or `memory` if it was ended.
        said: The end of what it printed.
    """
    begun: list[int] = []
    raised: list[Raised] = []
    started, how, message = False, "", ""
    said_as: dict[int, bool] = {}
    status, words = None, ""
    for line in lines:
        if not isinstance(line, dict):
            continue
        kind, index = line.get("event"), line.get("index")
        if kind == "kernel":
            started = True
        elif kind == "cell" and isinstance(index, int):
            started = True
            begun.append(index)
        elif kind == "error" and isinstance(index, int) and len(raised) < _MOST_ERRORS:
            texts = (line.get(key) for key in ("name", "message", "traceback"))
            raised.append(Raised(index, *(text if isinstance(text, str) else "" for text in texts)))
        elif kind == "said" and isinstance(index, int) and isinstance(line.get("same"), bool):
            said_as[index] = line["same"]
        elif kind == "end" and not how:
            how, message = str(line.get("how")), str(line.get("message", ""))
            status, words = line.get("status"), str(line.get("words", ""))
    if why:
        how = why
    elif how not in ("done", "error", "timeout", "dead", "lost", "unreadable"):
        how = "gone"
        tail = [text.strip() for text in said.splitlines() if text.strip()]
        message = tail[-1] if tail else ""
    return Happened(
        how,
        tuple(begun),
        tuple(raised),
        started,
        message,
        seconds,
        said=tuple(sorted(said_as.items())),
        status=status if isinstance(status, int) and abs(status) < _MOST_STATUS else None,
        words=words,
    )


def _lines(path: Path) -> list[Any]:
    """The JSON lines of a file that may be anything."""
    try:
        if path.is_symlink() or not path.is_file():
            return []
        with path.open("rb") as file:
            raw = file.read(_LIMIT)
    except OSError:
        return []
    found = []
    for line in raw.split(b"\n"):
        if line:
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError):
                continue
    return found

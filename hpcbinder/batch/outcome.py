"""What is known of a run: of each of its tasks, from what they left in its folder."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from hpcbinder.batch.staging import FORMAT, OWN, RUN
from hpcbinder.errors import UsageError
from hpcbinder.regular import open_regular
from hpcbinder.text import one_line

_LIMIT = 256 << 20
_RESULT_LIMIT = 4 << 20
"""Bytes of one task's result: the notebook's own code can write there, too."""
_SAID_LIMIT = 4000


class State(Enum):
    """Of a task."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    """Its job ended without a word of it: killed, out of memory or time, the node gone."""
    CANCELLED = "cancelled"


ENDED = frozenset({State.DONE, State.FAILED, State.LOST, State.CANCELLED})


@dataclass(frozen=True)
class Outcome:
    """One task.

    Attributes:
        number: Of the task, from 0.
        name: Of its files.
        notebook: As it was named.
        seconds: Since it began, or that it took.
        error: What went wrong: `NameError: name 'x' is not defined`; "" for nothing.
        cell: Number of the cell that failed (`In [N]`), 0 for none.
        progress: `cell 3 of 10`, while it runs.
        reason: What it waits for, or what ended it.
        notes: What a person should know of it.
        output: Executed notebook, as far as it has come; None if there is none.
        page: The same as HTML.
        host: Where it runs or ran.
    """

    number: int
    name: str
    notebook: str
    parameters: Mapping[str, Any]
    state: State
    seconds: float = 0.0
    error: str = ""
    cell: int = 0
    progress: str = ""
    reason: str = ""
    notes: tuple[str, ...] = ()
    output: Path | None = None
    page: Path | None = None
    host: str = ""

    @property
    def said(self) -> str:
        """Why it is as it is, in a line; "" where there is nothing to say."""
        where = f"In [{self.cell}], " if self.cell else ""
        return "; ".join(filter(None, (f"{where}{self.error}" if self.error else "", self.reason, self.progress)))


@dataclass(frozen=True)
class Run:
    """All of them.

    Attributes:
        folder: Where the results are.
        image: Its id.
        report: There are HTML pages, too.
        repository: Where the image has its repository.
    """

    folder: Path
    image: str
    report: bool
    repository: str
    tasks: tuple[Mapping[str, Any], ...] = field(repr=False)


def read_run(folder: Path) -> Run:
    """What is to be done in a folder.

    Raises:
        UsageError: Nothing is, or nothing that this version knows.
    """
    path = folder / RUN
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_LIMIT))
        if data["format"] != FORMAT:
            raise UsageError("of another version of hpcbinder", where=one_line(str(path)))
        tasks = tuple(data["tasks"])
        for task in tasks:
            _checked(task)
        return Run(folder, str(data["image"]), bool(data["report"]), str(data["repository"]), tasks)
    except OSError as error:
        raise UsageError(f"no run of notebooks: {error.strerror}", where=one_line(str(path))) from None
    except (ValueError, LookupError, TypeError, RecursionError):
        raise UsageError("no run of notebooks", where=one_line(str(path))) from None


def outcomes(run: Run) -> list[Outcome]:
    """Each task as its own words have it; one that has said nothing waits."""
    return [_outcome(run, number, task) for number, task in enumerate(run.tasks)]


def lost(outcome: Outcome, run: Run, reason: str, *, cancelled: bool = False) -> Outcome:
    """A task that said nothing of its end, and what its output or its batch system says instead."""
    state = State.CANCELLED if cancelled else State.LOST
    return replace(outcome, state=state, progress="", reason=reason or _last_words(run, outcome.number))


def plain(value: Any) -> Any:
    """A parameter's value as every reader of JSON takes it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value


def _checked(task: Mapping[str, Any]) -> None:
    name = task["name"]
    if not isinstance(name, str) or "/" in name or name.startswith(".") or not isinstance(task["parameters"], dict):
        raise ValueError
    str(task["notebook"])


def _outcome(run: Run, number: int, task: Mapping[str, Any]) -> Outcome:
    said = _result(run.folder / OWN / "results" / f"{number}.json")
    states = {"running": State.RUNNING, "done": State.DONE, "failed": State.FAILED}
    state = states.get(str(said.get("state")), State.WAITING)
    error = said.get("error")
    told = error if isinstance(error, dict) else {}
    if state is State.FAILED and told.get("name") == "Stopped":
        state = State.CANCELLED
    message = one_line(str(told.get("message", "")), 500)
    cells, cell = _number(said.get("cells")), _number(said.get("cell"))
    notes = said.get("notes")
    notebook, page = (run.folder / f"{task['name']}{ending}" for ending in (".ipynb", ".html"))
    return Outcome(
        number=number,
        name=task["name"],
        notebook=str(task["notebook"]),
        parameters=task["parameters"],
        state=state,
        seconds=round(float(_number(said.get("seconds"))), 1),
        error=": ".join(filter(None, (one_line(str(told.get("name", "")), 100), message))),
        cell=int(_number(told.get("cell"))),
        progress=f"cell {int(cell)} of {int(cells)}" if state is State.RUNNING and cells and cell else "",
        notes=tuple(
            one_line(str(note), 500)
            for note in (task.get("note"), *(notes[:50] if isinstance(notes, list) else ()))
            if note
        ),
        output=notebook if notebook.is_file() else None,
        page=page if page.is_file() else None,
        host=one_line(str(said.get("host", "")), 100),
    )


def _number(value: Any) -> float:
    # An integer may be larger than any float.
    return value if isinstance(value, (int, float)) and 0 <= value <= sys.float_info.max else 0


def _result(path: Path) -> dict[str, Any]:
    """A result that may be anything, or not there yet."""
    try:
        file = open_regular(path)
        if file is None:
            return {}
        with file:
            said = json.loads(file.read(_RESULT_LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _last_words(run: Run, number: int) -> str:
    """The last line that a task printed."""
    try:
        with (run.folder / OWN / "log" / f"{number}.log").open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _SAID_LIMIT, 0))
            lines = file.read(_SAID_LIMIT).decode("utf-8", "replace").splitlines()
    except OSError:
        return f"it left no word of itself: do the nodes see {one_line(str(run.folder), 200)}?"
    return next((one_line(line.strip(), 300) for line in reversed(lines) if line.strip()), "it said nothing")

"""What was found: plain values that can be printed as JSON."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class Status(str, enum.Enum):
    """What became of a notebook."""

    RUNS = "runs"
    FAILS = "fails"
    NETWORK = "network"
    DATA = "data"
    TIMEOUT = "timeout"
    KERNEL = "kernel"
    UNREADABLE = "unreadable"
    UNTRIED = "untried"


WORDS: Mapping[Status, str] = {
    Status.RUNS: "runs",
    Status.FAILS: "fails",
    Status.NETWORK: "needs the network",
    Status.DATA: "needs a data file",
    Status.TIMEOUT: "takes too long",
    Status.KERNEL: "no kernel for it",
    Status.UNREADABLE: "cannot be read",
    Status.UNTRIED: "not run",
}
"""A status for a person."""


@dataclass(frozen=True)
class Failure:
    """The error that ended a notebook.

    Attributes:
        cell: Number of the code cell, from 1 (`In [N]` when all are run); 0 where it was none of them.
        index: Its place among all cells, from 0; -1 for none.
        name: Of the error.
        message: Its first line.
        frame: Where it was raised, the last frame of its traceback.
        line: The line of the cell that led there.
    """

    cell: int
    index: int
    name: str
    message: str
    frame: str = ""
    line: str = ""


@dataclass(frozen=True)
class Verdict:
    """What became of one notebook.

    Attributes:
        notebook: Its path below the repository's root.
        status: See `Status`.
        line: It all in one line.
        failure: What ended it, None if nothing did.
        cause: What is probably behind that, and what to do; "" if unknown.
        kernel: Name of the image's kernel it was run with, "" if it was not run.
        notes: What else a person should know, one line each.
        seconds: How long it took.
        cells: Code cells it has.
        ran: Code cells that were run to their end.
        compared: Code cells that were run and have a text that was saved (what they print, and their result).
        changed: Numbers of those that now say something else, which is no failure.
    """

    notebook: str
    status: Status
    line: str
    failure: Failure | None = None
    cause: str = ""
    kernel: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    cells: int = 0
    ran: int = 0
    compared: int = 0
    changed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Missing:
    """Something that is imported and cannot be.

    Attributes:
        module: Full name.
        name: What is taken from it, "" for the module itself.
        error: Name of the error.
        message: Its message.
        file: Where it is imported.
        cell: Number of the code cell there, 0 in a script.
        line: Line of the cell or script.
        distribution: What probably brings it, "" where the module is there but not what is taken from it.
        cause: What is probably behind it.
        others: How many more places import it.
    """

    module: str
    name: str
    error: str
    message: str
    file: str
    cell: int
    line: int
    distribution: str
    cause: str = ""
    others: int = 0

    @property
    def what(self) -> str:
        """`from sklearn.externals import joblib`, as short as it can be said."""
        return f"{self.module}.{self.name}" if self.name else self.module

    @property
    def place(self) -> str:
        """`ch03.ipynb, cell 2, line 1`."""
        cell = f", cell {self.cell}" if self.cell else ""
        return f"{self.file}{cell}, line {self.line}"


@dataclass(frozen=True)
class Verification:
    """All that was found about an image.

    Attributes:
        id: Of the image.
        digest: Of its configuration: a build anew may be another image under the same id.
        runtime: What ran it.
        network: `off`, `on` (it was asked for), or `not off` where it could not be switched off.
        created: Unix time (s).
        imports: Different imports that were tried.
        missing: Those that failed.
        notebooks: What became of each.
        notes: What a person should know of it all.
        ran: Notebooks were run; else only imports were tried.
    """

    id: str
    digest: str
    runtime: str
    network: str
    created: int
    imports: int
    missing: tuple[Missing, ...]
    notebooks: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()
    ran: bool = True

    @property
    def runs(self) -> int:
        """How many notebooks run."""
        return sum(verdict.status is Status.RUNS for verdict in self.notebooks)

    @property
    def passed(self) -> bool:
        """Every notebook runs; where none was run, nothing that a notebook imports is missing. A repository without
        notebooks has scripts instead."""
        if self.ran and self.notebooks:
            return self.runs == len(self.notebooks)
        notebooks = [missing for missing in self.missing if missing.cell]
        unreadable = any(verdict.status is Status.UNREADABLE for verdict in self.notebooks)
        return not (notebooks if self.notebooks else self.missing) and not unreadable

    @property
    def summary(self) -> str:
        """`3 of 4 notebooks run, 2 imports missing`."""
        missing = f"{len(self.missing)} of {self.imports} imports missing"
        if not self.notebooks:
            return f"no notebooks, {missing}"
        if not self.ran:
            return f"{_notebooks(len(self.notebooks))} not run, {missing}"
        total = len(self.notebooks)
        tail = f", {missing}" if self.missing else ""
        return f"{self.runs} of {_notebooks(total)} {'runs' if total == 1 else 'run'}{tail}"


def _notebooks(count: int) -> str:
    return f"{count} notebook{'s' * (count != 1)}"

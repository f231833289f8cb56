"""From what happened in a notebook to a verdict. Nothing is run here."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hpcbinder.notebooks import Cell, Notebook
from hpcbinder.text import one_line
from hpcbinder.verify.causes import distribution, is_network, likely_cause
from hpcbinder.verify.death import read_death
from hpcbinder.verify.verdict import Failure, Status, Verdict

_ANSI = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]")
_FRAME = re.compile(
    r"^(?:File\s+(?P<file>\S.*?)(?::(?P<at>\d+))?(?:, in (?P<in>[^\n]*))?"
    r"|(?P<cell>Cell In\[\d+\], line \d+|Input In \[\d+\], in [^\n]*|<ipython-input-\d+-[^>]*> in [^\n]*)"
    r"|(?P<old>[~/][^\n]*?\.py\S* in [^\n]*))$",
    re.M,
)
_ARROW = re.compile(r"^-+> *\d+ ?(?P<code>[^\n]*)$", re.M)
_MISSING_FILE = re.compile(
    r"No such file or directory|does not exist|[Uu]nable to (?:synchronously )?open file|not found\."
)
_QUOTED = re.compile(r"(?:'((?:[^'\\\n]|\\.){1,500})'|\"([^\"\n]{1,500})\")")
_SAME = ({"ImportError", "ModuleNotFoundError"}, {"IOError", "OSError", "FileNotFoundError"}, {"error", ""})
"""Names of one error in different Pythons."""
_MOST_SOURCE = 100_000
"""Characters of a cell in which a name is looked for."""
_FEW = 10
"""Cells that are named."""


@dataclass(frozen=True)
class Raised:
    """An error that a cell raised.

    Attributes:
        index: Of the cell, among all.
        traceback: As the kernel shows it, with its colours.
    """

    index: int
    name: str
    message: str
    traceback: str


@dataclass(frozen=True)
class Happened:
    """What became of a run.

    Attributes:
        how: `done`, `error`, `timeout` (of a cell), `dead` (the kernel died), `lost` (whatever else), `time` and
            `memory` (of the whole notebook, which was ended), `unreadable`, `nbclient` (not in the image), or `gone`
            (it ended and said nothing).
        begun: Indices of the cells that were begun, in order.
        raised: Errors, in order.
        started: The kernel was there.
        message: What was said of it.
        seconds: How long it took.
        said: (index of a cell, whether what it says is what was saved), of those with a text that was saved.
        status: How the kernel's process ended, as `subprocess` has it (negative for a signal), None if that is unknown.
        words: The end of the kernel's standard error.
    """

    how: str
    begun: tuple[int, ...] = ()
    raised: tuple[Raised, ...] = ()
    started: bool = True
    message: str = ""
    seconds: float = 0.0
    said: tuple[tuple[int, bool], ...] = ()
    status: int | None = None
    words: str = ""


@dataclass(frozen=True)
class Bounds:
    """What a run was held to: seconds of a cell and of the notebook, bytes of memory (0 for any)."""

    cell: float
    notebook: float
    memory: int


def may_fail(notebook: Notebook) -> tuple[int, ...]:
    """The cells after whose error the notebook goes on, as it did when it was saved."""
    return tuple(cell.index for cell in notebook.cells if cell.may_raise or cell.saved)


def judge(
    notebook: Notebook,
    happened: Happened,
    *,
    kernel: str,
    paths: Collection[str],
    offline: bool,
    bounds: Bounds,
    notes: Sequence[str] = (),
) -> Verdict:
    """Say what became of a notebook.

    Args:
        kernel: Name of the image's kernel.
        paths: The repository's files.
        offline: There was no network.
        notes: What is known already.
    """
    judged = _Judge(notebook, happened, paths, offline, bounds)
    status, failure, cause, line, more = judged.verdict()
    ran = len(set(happened.begun)) - (failure is not None and failure.index in happened.begun)
    numbers = {cell.index: cell.number for cell in notebook.cells}
    ended = failure.index if failure is not None else -1
    said = {numbers[index]: same for index, same in happened.said if index in numbers and index != ended}
    changed = tuple(sorted(number for number, same in said.items() if not same))
    if changed:
        more = (*more, f"{_cells(changed)}: another text than was saved (of {len(said)} that were compared)")
    return Verdict(
        notebook=notebook.path,
        status=status,
        line=line,
        failure=failure,
        cause=cause,
        kernel=kernel,
        notes=(*notes, *more),
        seconds=round(happened.seconds, 1),
        cells=len(notebook.cells),
        ran=max(ran, 0),
        compared=len(said),
        changed=changed,
    )


_Found = tuple[Status, Failure | None, str, str, tuple[str, ...]]


class _Judge:
    def __init__(
        self, notebook: Notebook, happened: Happened, paths: Collection[str], offline: bool, bounds: Bounds
    ) -> None:
        self.notebook, self.happened, self.paths = notebook, happened, paths
        self.offline, self.bounds = offline, bounds
        self.cells = {cell.index: cell for cell in notebook.cells}

    def verdict(self) -> _Found:
        expected = []
        for raised in self.happened.raised:
            cell = self.cells.get(raised.index)
            if self._expected(raised, cell):
                expected.append(raised)
                continue
            return self._failed(raised, cell)
        if self.happened.how == "done":
            count = len(self.notebook.cells)
            line = f"runs ({count} cell{'s' * (count != 1)}" if count else "runs (it has no code"
            if expected:
                kinds = ", ".join(dict.fromkeys(one_line(raised.name, 40) for raised in expected))
                more = f"{len(expected)} of them fail{'s' * (len(expected) == 1)} on purpose: {kinds}"
                return Status.RUNS, None, "", f"{line}, {more})", ()
            return Status.RUNS, None, "", f"{line})", ()
        return self._ended()

    def _expected(self, raised: Raised, cell: Cell | None) -> bool:
        if self.notebook.allow_errors or (cell is not None and cell.may_raise):
            return True
        if cell is None or not cell.saved:
            return False
        return raised.name == cell.saved or any({raised.name, cell.saved} <= same for same in _SAME)

    def _failed(self, raised: Raised, cell: Cell | None) -> _Found:
        traceback = _ANSI.sub("", raised.traceback)
        failure = Failure(
            cell=cell.number if cell else 0,
            index=raised.index,
            name=one_line(raised.name, 100),
            message=_first_line(_ANSI.sub("", raised.message)),
            frame=_frame(traceback),
            line=_line_of_cell(traceback, cell),
        )
        where = f"cell {failure.cell}" if failure.cell else "a cell"
        error = f"{failure.name}: {failure.message}" if failure.message else failure.name
        notes: tuple[str, ...] = ()
        if cell is not None and cell.saved:
            notes = (f"the saved notebook fails there too, with another error: {cell.saved}",)
        if self.offline and is_network(raised.name, traceback + raised.message):
            return Status.NETWORK, failure, "", f"needs the network: {where}, {error}", notes
        if self.offline and raised.name == "CalledProcessError" and cell is not None and cell.downloads:
            return (
                Status.NETWORK,
                failure,
                "",
                f"needs the network: {where} fetches something ({cell.downloads})",
                notes,
            )
        if (path := _missing_file(raised, traceback)) is not None:
            return self._without(path, failure, where, error, notes)
        cause = likely_cause(raised.name, _ANSI.sub("", raised.message)) or self._module(raised) or self._order(raised)
        return Status.FAILS, failure, cause, f"fails at {where}: {error}", notes

    def _without(self, path: str, failure: Failure, where: str, error: str, notes: tuple[str, ...]) -> _Found:
        shown = one_line(path, 200)
        if self.offline and (earlier := self._downloads(failure.index)):
            what = f"{shown or 'a file'}, which cell {earlier.number} may fetch ({earlier.downloads})"
            return Status.NETWORK, failure, "", f"needs the network: {where} wants {what}", notes
        if path and (there := self._there(path)):
            cause = f"the repository has {one_line(there, 200)}: the notebook looks for it elsewhere"
            return Status.FAILS, failure, cause, f"fails at {where}: {error}", notes
        if path and "/" not in path and "subprocess.py" in failure.frame:
            cause = likely_cause(failure.name, failure.message) or f"the program {shown} is not in the image (apt.txt)"
            return Status.FAILS, failure, cause, f"fails at {where}: {error}", notes
        cause = "the file is not in the repository; perhaps it is to be fetched or mounted first"
        what = shown or failure.message
        return Status.DATA, failure, cause, f"needs a data file: {where} wants {what}", notes

    def _there(self, path: str) -> str:
        """The file of the repository that is meant, if there is one."""
        name = posixpath.basename(path.replace("\\", "/").rstrip("/"))
        return next((found for found in self.paths if name and posixpath.basename(found) == name), "")

    def _downloads(self, index: int) -> Cell | None:
        """A cell before, or this one, that fetches something."""
        return next((cell for cell in self.notebook.cells if cell.index <= index and cell.downloads), None)

    def _module(self, raised: Raised) -> str:
        match = re.search(r"No module named '?([\w.]+)'?", raised.message)
        if not match or raised.name not in ("ModuleNotFoundError", "ImportError"):
            return ""
        earlier = self._downloads(raised.index)
        if earlier is not None and "install" in earlier.downloads:
            return (
                f"cell {earlier.number} installs packages from within the notebook ({earlier.downloads}), "
                f"and the image is read-only: add {distribution(match[1])} to the requirements"
            )
        return f"{match[1]} is not in the image: add {distribution(match[1])} to the requirements"

    def _order(self, raised: Raised) -> str:
        """A name that a later cell brings: the author ran the cells in another order."""
        match = re.search(r"name '(\w{1,100})' is not defined", raised.message)
        if not match or raised.name != "NameError":
            return ""
        name = match[1]
        brings = re.compile(
            rf"^[ \t]{{0,40}}(?:(?:async )?def|class) {name}\b|^{name}[ \t]?=(?!=)"
            rf"|^[ \t]{{0,40}}(?:from|import) [^\n]{{0,200}}\b{name}\b",
            re.M,
        )
        later = (
            cell
            for cell in self.notebook.cells
            if cell.index > raised.index and brings.search(cell.source[:_MOST_SOURCE])
        )
        cell = next(later, None)
        return f"cell {cell.number}, further down, defines it: its cells were run in another order" if cell else ""

    def _ended(self) -> _Found:
        """No error that was not expected, and yet it did not come to its end."""
        how, happened = self.happened.how, self.happened
        last = self.cells.get(happened.begun[-1]) if happened.begun else None
        at = f"cell {last.number}" if last else "its start"
        number, index = (last.number, last.index) if last else (0, -1)
        said = _first_line(happened.message)
        if how == "timeout":
            text = f"takes longer than {self.bounds.cell:g} s"
            failure = Failure(number, index, "Timeout", text)
            cause = "give it more time (--cell-timeout), or run it in a batch job"
            return Status.TIMEOUT, failure, cause, f"takes too long: {at} {text}", ()
        if how == "time":
            text = f"the notebook takes longer than {self.bounds.notebook:g} s"
            failure = Failure(number, index, "Timeout", text)
            cause = "give it more time (--timeout), or run it in a batch job"
            return Status.TIMEOUT, failure, cause, f"takes too long: {text}, and was at {at}", ()
        if how == "memory":
            text = f"needs more than {self.bounds.memory >> 20} MiB of memory"
            failure = Failure(number, index, "MemoryError", text)
            return Status.FAILS, failure, "give it more (--memory)", f"fails at {at}: {text}", ()
        death = read_death(happened.status, happened.words)
        if how == "dead":
            failure = Failure(number, index, "DeadKernel", death.text)
            cause = (
                death.cause or "a crash in compiled code, not enough memory, or the notebook ended it (os._exit, quit)"
            )
            return Status.FAILS, failure, cause, f"fails at {at}: {death.text}", death.notes
        if how == "unreadable":
            return Status.UNREADABLE, None, "", f"cannot be read: {said}", ()
        if how == "nbclient":
            cause = "the image has no JupyterLab: install nbclient in its Dockerfile"
            return Status.UNTRIED, None, cause, "not run: no Python in the image has nbclient", ()
        if not happened.started:
            failure = Failure(0, -1, "KernelStart", death.error or said or "the kernel does not start")
            return Status.FAILS, failure, death.cause, f"fails at its start: {failure.message}", death.notes
        failure = Failure(number, index, "Lost", said or "the run ended and said nothing")
        return Status.FAILS, failure, "", f"fails at {at}: {failure.message}", ()


def _cells(numbers: Sequence[int]) -> str:
    """`cells 3, 5 and 2 more`."""
    few = ", ".join(map(str, numbers[:_FEW]))
    more = f" and {len(numbers) - _FEW} more" if len(numbers) > _FEW else ""
    return f"cell{'s' * (len(numbers) != 1)} {few}{more}"


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return one_line(lines[0], 300) if lines else ""


def _frame(traceback: str) -> str:
    """The last frame that is named."""
    last = next(iter(reversed(list(_FRAME.finditer(traceback)))), None)
    if last is None:
        return ""
    if last["file"]:
        at = f":{last['at']}" if last["at"] else ""
        inside = f" in {last['in']}" if last["in"] else ""
        return one_line(f"{last['file']}{at}{inside}", 200)
    return one_line(last["cell"] or last["old"] or "", 200)


def _line_of_cell(traceback: str, cell: Cell | None) -> str:
    """The first line of the cell that an arrow points at."""
    codes = [match["code"].strip() for match in _ARROW.finditer(traceback)]
    return next((one_line(code, 200) for code in codes if cell is not None and code and code in cell.source), "")


def _missing_file(raised: Raised, traceback: str) -> str | None:
    """The path that was not found; "" if it is not told, None if that is not what happened."""
    message = _ANSI.sub("", raised.message)
    if raised.name not in ("FileNotFoundError", "OSError", "IOError", "NotADirectoryError", "HTTPError"):
        return None
    if raised.name != "FileNotFoundError" and not _MISSING_FILE.search(message):
        return None
    quoted = [match for match in _QUOTED.finditer(message) if "No such file" not in match[0]]
    match = quoted[-1] if quoted else None
    if match is None:
        tail = re.match(r"(?:\[Errno 2\] )?(?:File )?(\S+) (?:not found\.|does not exist)", message)
        return tail[1] if tail else ""
    return match[1] or match[2]

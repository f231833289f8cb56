"""How progress looks: a live line on a terminal, plain lines in CI, JSON events for machines. Always on stderr."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from types import TracebackType
from typing import Protocol

from hpcbinder.progress import Unheard
from hpcbinder.text import one_line


class ConsoleReporter(Protocol):
    """A `Reporter` that is also a context: what it holds on the screen ends with the block."""

    def phase(self, phase: str, message: str, progress: float | None = None) -> None: ...
    def log(self, phase: str, line: str) -> None: ...
    def __enter__(self) -> ConsoleReporter: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def reporter(*, json_logs: bool, verbose: bool) -> ConsoleReporter:
    """Choose by what stderr is; `verbose` shows the tools' output as it comes."""
    if json_logs:
        return JsonReporter()
    if sys.stderr.isatty() and not verbose and not os.environ.get("CI"):
        return TerminalReporter()
    return PlainReporter(verbose=verbose)


def say(line: str) -> None:
    """One line on stderr, at once.

    Raises:
        Unheard: Nobody can read it any more.
    """
    try:
        print(line, file=sys.stderr, flush=True)
    except BrokenPipeError as error:
        raise Unheard from error


def warning(text: str, *, json_logs: bool) -> None:
    """Say, outside of any phase, what is wrong but stops nothing."""
    line = one_line(text)
    if json_logs:
        say(json.dumps({"phase": "warning", "message": line, "progress": None}))
    else:
        say(f"hpcbinder: warning: {line}")


class PlainReporter:
    """A line for each message, with the seconds since the start."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._start = time.monotonic()
        self._last = ""
        self._lock = threading.Lock()

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        line = f"{phase:>8}  {one_line(message)}"
        with self._lock:
            # A repeated message with another percentage is for live displays only.
            if line != self._last:
                self._last = line
                say(f"[{time.monotonic() - self._start:6.1f}s] {line}")

    def log(self, phase: str, line: str) -> None:
        if self._verbose:
            with self._lock:
                say(f"          {phase:>8}  | {one_line(line)}")

    def __enter__(self) -> PlainReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class JsonReporter:
    """One JSON object a line: phase, message, progress; a tool's output is an event with `log` true."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        self._write({"phase": phase, "message": one_line(message), "progress": progress})

    def log(self, phase: str, line: str) -> None:
        self._write({"phase": phase, "message": one_line(line), "progress": None, "log": True})

    def _write(self, event: dict[str, object]) -> None:
        with self._lock:
            say(json.dumps(event))

    def __enter__(self) -> JsonReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class TerminalReporter:
    """A live line with what runs, for how long, and the newest line of its output; what is over stays above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[phase]:>8}", style="bold"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("", phase="", total=None)
        self._message = ("", "")

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        from rich.text import Text

        text = one_line(message)
        if (phase, text) != self._message:
            self._message = (phase, text)
            self._console.print(Text.assemble((f"{phase:>8}", "bold"), "  ", text), soft_wrap=True)
            # A task of its own: its clock starts now, and a bar that was full is none of its business.
            self._progress.remove_task(self._task)
            self._task = self._progress.add_task(text[:60], phase=phase, total=None)
        if progress is not None:
            self._progress.update(self._task, total=1.0, completed=progress)

    def log(self, phase: str, line: str) -> None:
        self._progress.update(self._task, phase=phase, description=one_line(line)[:60])

    def __enter__(self) -> TerminalReporter:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

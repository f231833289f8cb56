"""How long work says where it is. The pipeline speaks to a `Reporter`; the CLI decides how that looks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Unheard(Exception):
    """Whoever read what is said went away in the middle of the work, which stops: as a SIGPIPE would have it."""


@dataclass
class Clock:
    """Seconds spent in each phase."""

    timings: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.timings[phase] = round(self.timings.get(phase, 0.0) + time.monotonic() - start, 3)


class Reporter(Protocol):
    """Receives what happens, from any thread. Its methods may raise `Unheard`."""

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        """Say what is going on.

        Args:
            phase: fetch, plan, pull, build, convert, register, push; of commands that look into files their name.
            message: One line, already safe to print (no control characters).
            progress: 0 to 1 where it is known.
        """

    def log(self, phase: str, line: str) -> None:
        """One line of output of a tool (a build's log); shown on request or when the phase fails."""


class Silent:
    """A reporter that says nothing."""

    def phase(self, phase: str, message: str, progress: float | None = None) -> None: ...

    def log(self, phase: str, line: str) -> None: ...

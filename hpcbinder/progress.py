"""How long work says where it is. The pipeline speaks to a `Reporter`; the CLI decides how that looks."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Receives what happens, from any thread."""

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        """Say what is going on.

        Args:
            phase: fetch, plan, build, convert, register.
            message: One line, already safe to print (no control characters).
            progress: 0 to 1 where it is known.
        """

    def log(self, phase: str, line: str) -> None:
        """One line of output of a tool (a build's log); shown on request or when the phase fails."""


class Silent:
    """A reporter that says nothing."""

    def phase(self, phase: str, message: str, progress: float | None = None) -> None: ...

    def log(self, phase: str, line: str) -> None: ...

"""Reading what buildah and podman say while they build: which step speaks, which one failed and with which words.

The format is that of buildah's `imagebuildah` (stage_executor.go): `[1/3] STEP 2/5: RUN …` begins a step (without the
stage's number if there is one stage), `--> Using cache ID` and `--> ID` end it (podman says so; buildah does not when
it is to write the id to a file), and at the end of a failed build stands `Error: building at STEP "RUN …": while
running runtime: exit status 1`. All between is what the step itself says.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping

from hpcbinder.engine.pinned import unpinned
from hpcbinder.errors import BuildError
from hpcbinder.output import advice, clean, telling
from hpcbinder.text import one_line

_KEPT = 60
"""Lines of a step's output that are remembered."""

_STEP = re.compile(r"(?:\[\d+/\d+\] )?STEP \d+/\d+: (\w+)(.*)")
_COMMIT = re.compile(r"(?:\[\d+/\d+\] )?COMMIT ")
_NOISE = re.compile(r"Successfully tagged |[0-9a-f]{64}\Z|subprocess exited (with status \d+|on \w+)\Z")
_KILLED = "subprocess exited on killed"
_WARNING = re.compile(r'time="[^"]*" level=(warning|info|debug)')


class StepLog:
    """Takes a build's output line by line.

    Args:
        log: Gets `title | text` for each line of a step, safe to print.
        titles: Mounted folder -> title of the step that mounts it.
        hidden: Texts that must never be shown.
    """

    def __init__(self, log: Callable[[str], None], titles: Mapping[str, str], hidden: Collection[str] = ()) -> None:
        self._log = log
        self._titles = titles
        self._hidden = sorted((text for text in hidden if len(text) > 3), key=len, reverse=True)
        self._title: str | None = None
        self._begin = time.monotonic()
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self._errors: deque[str] = deque(maxlen=3)
        self._killed = False

    def feed(self, raw: bytes) -> None:
        """Take one line, or a piece of one that is too long."""
        text = clean(raw, self._hidden).rstrip()
        if step := _STEP.match(text):
            self._begin_step(step[1].upper(), step[2].strip())
        elif text.startswith("--> ") or _COMMIT.match(text):
            self._end_step(text.startswith("--> Using cache"))
        elif text.startswith("Error: building at STEP "):
            self._errors.append(text.removeprefix("Error: "))
        elif not text or _NOISE.match(text) or _WARNING.match(text):
            self._killed = self._killed or text == _KILLED
        else:
            if text.startswith("Error: "):  # the tool's last word, or a step's
                self._errors.append(text.removeprefix("Error: "))
            self._lines.append(text)
            self._log(f"{self._title} | {text}" if self._title else text)

    def failure(self, code: int) -> BuildError:
        """The error of a build that ended with this exit status."""
        said = self._errors[-1] if self._errors else (self._lines[-1] if self._lines else f"exit status {code}")
        match = re.search(r"building at STEP \".*\": .*?exit status (\d+)", said)
        if match is None or self._title is None:
            return BuildError(f"the build failed: {one_line(said, 500)}")
        status = "137" if self._killed else match[1]
        hint = advice(int(status), self._lines)
        end = " / ".join(telling(self._lines)) or "it said nothing"
        return BuildError(f"step {self._title} failed with exit status {status}: {end}", hint=hint)

    def _begin_step(self, word: str, rest: str) -> None:
        self._end_step(False)
        self._begin = time.monotonic()
        self._lines.clear()
        if word not in ("RUN", "COPY", "ADD", "WORKDIR"):
            return
        source = re.match(r"--mount=type=bind,source=([^,\s]+)", rest) if word == "RUN" else None
        if source:
            folder = unpinned(source[1])
            self._title = self._titles.get(folder, folder)
        else:
            self._title = one_line(f"{word} {rest}", 120)
        self._log(self._title)

    def _end_step(self, cached: bool) -> None:
        if self._title is not None:
            took = f"done {time.monotonic() - self._begin:.1f}s"
            self._log(f"{self._title}: {'cached' if cached else took}")
        self._title = None

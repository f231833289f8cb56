"""Reading what BuildKit says with `--progress plain`: which step speaks, which one failed and with which words.

The format is BuildKit's `util/progress/progressui` (textMux): `#5 [stage 2/3] RUN …` names vertex 5, `#5 0.332 text` is
its output, `#5 DONE 0.4s`, `#5 CACHED`, `#5 ERROR: …` its end. What follows an error repeats it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from hpcbinder.errors import BuildError
from hpcbinder.output import advice, clean, telling
from hpcbinder.text import one_line

_KEPT = 60
"""Lines of each step's output that are remembered."""


@dataclass
class _Vertex:
    title: str
    is_step: bool
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))
    error: str | None = None


class BuildLog:
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
        self._vertices: dict[str, _Vertex] = {}
        self._loose: deque[str] = deque(maxlen=_KEPT)
        self._failed = False

    def feed(self, raw: bytes) -> None:
        """Take one line, or a piece of one that is too long."""
        text = clean(raw, self._hidden, r"#\d+ \d+\.\d+ ")
        match = re.match(r"#(\d+) (.*)", text)
        if match is None:
            self._failed = self._failed or text.startswith("------")
            if text.strip():
                self._loose.append(text.strip())
                if not self._failed:
                    self._log(text)
            return
        vertex = self._vertices.get(match[1])
        if vertex is None:
            vertex = self._vertices[match[1]] = self._vertex(match[2])
            if vertex.is_step:
                self._log(vertex.title)
            return
        if not self._failed:
            self._take(vertex, match[2])

    def failure(self, code: int) -> BuildError:
        """The error of a build that ended with this exit status."""
        failed = next((vertex for vertex in self._vertices.values() if vertex.error is not None), None)
        if failed is None or failed.error is None:
            said = [line for line in self._loose if not line.startswith(("------", ">"))]
            return BuildError(f"the build failed: {said[-1] if said else f'exit status {code}'}")
        status = re.search(r"exit code: (\d+)", failed.error)
        if not failed.is_step or status is None:
            return BuildError(f"the build failed at {failed.title}: {failed.error}")
        hint = advice(int(status[1]), failed.lines)
        end = " / ".join(telling(failed.lines)) or "it said nothing"
        return BuildError(f"step {failed.title} failed with exit status {status[1]}: {end}", hint=hint)

    def _take(self, vertex: _Vertex, text: str) -> None:
        if output := re.match(r"\d+\.\d+ ?(.*)", text):
            line = output[1].rstrip()
            if line:
                vertex.lines.append(line)
                self._log(f"{vertex.title} | {line}")
        elif text.startswith("ERROR"):
            vertex.error = text.removeprefix("ERROR").lstrip(": ")
        elif vertex.is_step and re.match(r"DONE [0-9.]+s|CACHED", text):
            self._log(f"{vertex.title}: {text.lower()}")

    def _vertex(self, header: str) -> _Vertex:
        source = re.search(r"\bRUN\s+--mount=type=bind,source=([^,\s]+)", header)
        if source:
            return _Vertex(self._titles.get(source[1], source[1]), True)
        is_step = re.match(r"\[.*\] (RUN|COPY|ADD|WORKDIR)\b", header) is not None
        return _Vertex(one_line(re.sub(r"^\[[^\]]*\] ", "", header) if is_step else header, 120), is_step)

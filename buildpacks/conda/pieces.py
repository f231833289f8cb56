"""Lock files in YAML that programs wrote, conda-lock.yml and pixi.lock: tens of thousands of lines, of which an image
needs a few words each. A reader of all YAML takes minutes for them, so that they are read by their margins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NoReturn

from hpcbinder.plan import DetectError, Repo, show

LIMIT = 16 << 20
"""Bytes of a lock file; pixi's own has half a megabyte."""

MOST = 5000
"""Packages of an environment."""

_KEY = re.compile(r"(?P<key>[A-Za-z_][A-Za-z0-9_-]*):(?P<value>.*)")


class Pieces:
    """A lock file by its lines.

    Attributes:
        path: The file.
    """

    def __init__(self, repo: Repo, path: str) -> None:
        self.path = path
        self._lines = repo.read_text(path, limit=LIMIT).split("\n")

    def fail(self, message: str, number: int = 0, hint: str | None = None) -> NoReturn:
        """Refuse the file.

        Raises:
            DetectError: Always; with the line, if that is known.
        """
        where = f"{show(self.path)}:{number}" if number else show(self.path)
        raise DetectError(message, where=where, hint=hint)

    def value(self, key: str) -> str:
        """What stands behind a key at the margin, "" if nothing does."""
        for line in self._lines:
            match = _KEY.match(line)
            if match is not None and match["key"] == key:
                return match["value"].partition(" #")[0].strip().strip("'\"")
        return ""

    def section(self, *keys: str) -> tuple[int, int]:
        """The lines below a key, which stands below another, and so on: from, to; empty if there is no such key."""
        begin, end, margin = 0, len(self._lines), 0
        for key in keys:
            inside = False
            for number in range(begin, end):
                text = self._lines[number].lstrip(" ")
                depth = len(self._lines[number]) - len(text)
                if not text or text.startswith("#"):
                    continue
                if inside and (depth < margin or (depth == margin and not text.startswith("- "))):
                    end = number
                    break
                if not inside and depth == margin and text.rstrip().strip("'\"") in (f"{key}:", f"{key}':", f'{key}":'):
                    begin, inside = number + 1, True
            if not inside:
                return 0, 0
            below = next(
                (line for line in self._lines[begin:end] if line.strip() and not line.lstrip().startswith("#")), ""
            )
            margin = len(below) - len(below.lstrip(" "))
        return begin, end

    def keys(self, section: tuple[int, int]) -> list[str]:
        """The keys of a table."""
        found: list[str] = []
        margin = -1
        for line in self._lines[slice(*section)]:
            text = line.lstrip(" ")
            if margin < 0 and text:
                margin = len(line) - len(text)
            if text and len(line) - len(text) == margin and text.rstrip().endswith(":"):
                found.append(text.rstrip()[:-1].strip("'\""))
        return found

    def entries(self, section: tuple[int, int]) -> Iterator[tuple[int, str]]:
        """The entries of a list: line and text."""
        begun, margin = -1, -1
        for number in range(*section):
            line = self._lines[number]
            text = line.lstrip(" ")
            if text.startswith("- ") and margin in (-1, len(line) - len(text)):
                if begun >= 0:
                    yield begun + 1, "\n".join(self._lines[begun:number])
                begun, margin = number, len(line) - len(text)
        if begun >= 0:
            yield begun + 1, "\n".join(self._lines[begun : section[1]])


def fields(text: str) -> dict[str, str]:
    """The scalars of an entry of a list: `key`, and `key.below` for those of a table in it.

    Only what programs write: a value on one line, plain or in quotes. Anything else is as if it was not there.
    """
    margin = len(text) - len(text.lstrip(" ")) + 2
    found: dict[str, str] = {}
    above = ""
    for line in text.replace("- ", "  ", 1).split("\n"):
        body = line.lstrip(" ")
        match = _KEY.match(body)
        depth = len(line) - len(body)
        if match is None or depth < margin:
            continue
        value = _scalar(match["value"])
        if depth == margin:
            above = "" if match["value"].strip() else f"{match['key']}."
            found.setdefault(match["key"], value)
        elif above:
            found.setdefault(above + match["key"], value)
    return found


def _scalar(text: str) -> str:
    value = text.strip()
    if value[:1] in ("'", '"'):
        end = value.rfind(value[0])
        return "" if end < 1 or "\\" in value else value[1:end].replace("''", "'")
    value = value.partition(" #")[0].rstrip()
    return "" if value[:1] in tuple("&*!|>[{@`%#") or value in ("null", "~") else value


def word(value: Any) -> str:
    """A scalar of TOML as text, "" for anything else."""
    return str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""

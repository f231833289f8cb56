"""Imports of code that this Python does not parse: Python 2, or a cell cut short."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field

_FORGIVING = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})
_PLAIN = re.compile(r"[ \t]*(?:import[ \t]+(?P<what>[^#;\n]+)|from[ \t]+(?P<of>[\w.]+)[ \t]+import\b)")
_LONGEST = 10_000
"""Characters of a line that may import something."""


@dataclass
class _Try:
    """A `try:` that is open: what its body imports, and at which indentation it stands."""

    column: int
    body: list[int] = field(default_factory=list)


@dataclass
class _Line:
    """A logical line: its words up to a colon or semicolon, and where it stands."""

    words: list[str]
    line: int
    column: int


def older_imports(source: str) -> list[tuple[str, int, bool]]:
    """What code imports, as far as its words tell: (module, line, whether the code goes on without it).

    Text in strings and comments is none of it, unless even words cannot be told apart: of what follows then, whole
    lines that look like an import are taken.
    """
    lines = source.splitlines(keepends=True)
    found: list[tuple[str, int]] = []
    optional: set[int] = set()
    open_: list[_Try] = []
    reached = 0
    try:
        for line in _logical(iter(lines)):
            reached = line.line
            _step(line, found, optional, open_)
    except (tokenize.TokenError, SyntaxError, ValueError):
        found += plain_imports(lines, reached)
    return [(module, line, place in optional) for place, (module, line) in enumerate(found)]


def plain_imports(lines: list[str], reached: int = 0) -> Iterator[tuple[str, int]]:
    """What whole lines after the first `reached` look to import, with the numbers of these lines."""
    for number, text in enumerate(lines[reached:], reached + 1):
        if len(text) <= _LONGEST and (match := _PLAIN.match(text)):
            for module in _named(match["of"], match["what"]):
                yield module, number


def _step(line: _Line, found: list[tuple[str, int]], optional: set[int], open_: list[_Try]) -> None:
    first = line.words[0]
    while open_ and line.column < open_[-1].column:
        open_.pop()
    if open_ and line.column == open_[-1].column:
        if first == "except":
            if len(line.words) == 1 or _FORGIVING.intersection(line.words):
                optional.update(open_[-1].body)
            return
        open_.pop()
    if first == "try":
        open_.append(_Try(line.column))
        return
    modules = _modules(line.words)
    if open_ and modules:
        open_[-1].body += range(len(found), len(found) + len(modules))
    found += [(module, line.line) for module in modules]


def _logical(lines: Iterator[str]) -> Iterator[_Line]:
    words: list[str] = []
    line = column = 0
    for token in tokenize.generate_tokens(lambda: next(lines, "")):
        if token.type in (tokenize.NEWLINE, tokenize.ENDMARKER) or token.string in (":", ";"):
            if words:
                yield _Line(words, line, column)
            words = []
        elif token.type in (tokenize.NAME, tokenize.OP):
            if not words:
                line, column = token.start
            if len(words) < _LONGEST:
                words.append(token.string)


def _modules(words: list[str]) -> list[str]:
    if words[0] == "from" and "import" in words:
        name = "".join(words[1 : words.index("import")])
        return [] if name.startswith(".") else [name]
    if words[0] != "import":
        return []
    modules, name, renamed = [], "", False
    for word in [*words[1:], ","]:
        if word == ",":
            modules.append(name)
            name, renamed = "", False
        elif word == "as":
            renamed = True
        elif not renamed:
            name += word
    return modules


def _named(of: str | None, what: str | None) -> list[str]:
    return [of] if of else [part.split()[0] for part in (what or "").split(",") if part.split()]

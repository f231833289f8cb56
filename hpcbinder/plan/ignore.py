"""`.dockerignore` with Docker's own rules, which are not git's.

The rules are those of Docker's documentation ("Dockerfile reference: .dockerignore file") as its code has them:
moby/patternmatcher, `ignorefile/ignorefile.go` (reading) and `patternmatcher.go` (`MatchesUsingParentResults`).
In short: patterns are anchored at the root, `*` and `?` stop at `/`, `**` does not, a pattern that matches a folder
matches all below it, `!` takes back, and the last pattern that matches wins.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpcbinder.errors import DetectError

MAX_PATTERN = 1000
"""Characters of a pattern. Longer ones only serve to keep us busy."""


@dataclass(frozen=True)
class Pattern:
    """One line of an ignore file: what it matches, and whether it takes back (`!`)."""

    text: str
    matches: Callable[[str], object]
    exception: bool


Matched = tuple[bool, ...]
"""For one path: which of the patterns match it, or a folder above it."""


class Ignore:
    """The patterns of one or more ignore files, in their order.

    Attributes:
        files: Names of the files they were read from.
        patterns: The patterns.
    """

    def __init__(self, files: Sequence[str] = (), patterns: Sequence[Pattern] = ()) -> None:
        self.files = tuple(files)
        self.patterns = tuple(patterns)
        self.has_exceptions = any(pattern.exception for pattern in patterns)
        self.top: Matched = (False,) * len(self.patterns)

    def match(self, path: str, parent: Matched) -> tuple[bool, Matched]:
        """Say whether a path is ignored.

        Args:
            path: POSIX path below the root.
            parent: What this returned for the folder it is in; `top` for the root's own entries.

        Returns:
            Whether it is ignored, and what to pass on for entries below it.
        """
        if not self.patterns:
            return False, parent
        ignored = False
        matched = []
        for pattern, above in zip(self.patterns, parent, strict=True):
            hit = above or bool(pattern.matches(path))
            matched.append(hit)
            if hit:
                ignored = not pattern.exception
        return ignored, tuple(matched)

    def ignores(self, path: str) -> bool:
        """`match` for a single path, its parents looked at too."""
        matched, ignored = self.top, False
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            ignored, matched = self.match("/".join(parts[:end]), matched)
        return ignored


def parse_ignore(texts: Sequence[tuple[str, str]]) -> Ignore:
    """Read ignore files.

    Args:
        texts: (name, text) of each.

    Raises:
        DetectError: A pattern that Docker would not take either, with file and line.
    """
    patterns = []
    for name, text in texts:
        for number, line in enumerate(text.split("\n"), start=1):
            # A comment is a line whose first character is "#"; " #" is a pattern.
            if line.startswith("#") or not line.strip():
                continue
            try:
                patterns.append(_pattern(line.strip()))
            except ValueError as error:
                raise DetectError(f"not a pattern: {error}", where=f"{name}:{number}") from None
    return Ignore([name for name, _ in texts], patterns)


def _pattern(line: str) -> Pattern:
    exception = line.startswith("!")
    text = line[1:].strip() if exception else line
    if not text:
        raise ValueError("a lone '!'")
    if len(text) > MAX_PATTERN:
        raise ValueError(f"longer than {MAX_PATTERN} characters")
    tokens = _tokens(_clean(text))
    if sum(token in _WILD for token in tokens) <= 2:
        return Pattern(line, re.compile("".join(tokens) + r"\Z", re.DOTALL).match, exception)
    return Pattern(line, _Automaton(tokens).matches, exception)


def _clean(text: str) -> str:
    """Go's `filepath.Clean`, then without the leading slash, so that `/data` means `data`."""
    cleaned = posixpath.normpath(text)
    # POSIX keeps two leading slashes apart, Go does not.
    cleaned = "/" + cleaned.lstrip("/") if cleaned.startswith("/") else cleaned
    return cleaned[1:] if len(cleaned) > 1 and cleaned.startswith("/") else cleaned


_STAR, _FOLDERS, _REST = "[^/]*", "(?:.*/)?", ".*"
_WILD = frozenset({_STAR, _FOLDERS, _REST})


def _tokens(pattern: str) -> list[str]:
    """Go's `filepath.Match` syntax with `**` added, as regular expressions: one of `_WILD`, or one for a character."""
    out: list[str] = []
    i, end = 0, len(pattern)
    while i < end:
        char = pattern[i]
        i += 1
        if char == "*":
            if not pattern.startswith("*", i):
                out.append(_STAR)
                continue
            i += 1
            if pattern.startswith("/", i):
                i += 1
            out.append(_REST if i >= end else _FOLDERS)
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            i, text = _char_class(pattern, i)
            out.append(text)
        elif char == "\\":
            if i >= end:
                raise ValueError("ends with a backslash")
            out.append(re.escape(pattern[i]))
            i += 1
        else:
            out.append(re.escape(char))
    return out


class _Automaton:
    """Matches a pattern with many wildcards in a time that grows with its length and the path's, and no faster.

    A regular expression would try every way to share out a name among the wildcards.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self._wild = [token if token in _WILD else None for token in tokens]
        self._single = [None if token in _WILD else re.compile(token, re.DOTALL) for token in tokens]
        self._end = len(tokens)

    def matches(self, path: str) -> bool:
        # A state is the index of the next token; with True, inside the folders of a `**/`.
        states = self._closed({(0, False)})
        for char in path:
            following: set[tuple[int, bool]] = set()
            for at, _ in states:
                if at == self._end:
                    continue
                wild, single = self._wild[at], self._single[at]
                if wild == _REST or (wild == _STAR and char != "/"):
                    following.add((at, False))
                elif wild == _FOLDERS:
                    following.add((at, True))
                    if char == "/":
                        following.add((at + 1, False))
                elif single is not None and single.match(char):
                    following.add((at + 1, False))
            states = self._closed(following)
        return (self._end, False) in states

    def _closed(self, states: set[tuple[int, bool]]) -> set[tuple[int, bool]]:
        """With the states reached by letting wildcards match nothing."""
        pending = list(states)
        while pending:
            at, inside = pending.pop()
            if at < self._end and not inside and self._wild[at] is not None and (at + 1, False) not in states:
                states.add((at + 1, False))
                pending.append((at + 1, False))
        return states


def _char_class(pattern: str, i: int) -> tuple[int, str]:
    """Translate `[…]`; `i` is just behind the bracket."""
    negated = pattern.startswith("^", i)
    if negated:
        i += 1
    ranges: list[str] = []
    while True:
        if i < len(pattern) and pattern[i] == "]" and ranges:
            break
        i, low = _class_char(pattern, i)
        high = low
        if pattern.startswith("-", i):
            i, high = _class_char(pattern, i + 1)
        if high < low:
            raise ValueError("character range that ends before it begins")
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    # Go's Match lets no class match a separator.
    return i + 1, f"(?!/)[{'^' if negated else ''}{''.join(ranges)}]"


def _class_char(pattern: str, i: int) -> tuple[int, str]:
    if i < len(pattern) and pattern[i] == "\\":
        i += 1
    elif i >= len(pattern) or pattern[i] in "-]":
        raise ValueError("bad or unclosed character range")
    if i >= len(pattern):
        raise ValueError("unclosed character range")
    return i + 1, pattern[i]

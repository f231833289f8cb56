"""Making foreign text safe to print."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """Show control characters, line ends and what cannot be encoded as escapes, so that text from a repository can
    neither forge a line of ours nor command a terminal."""
    if text.isprintable():
        return text
    return "".join(_escape(c) if unicodedata.category(c) in _UNSAFE else c for c in text)


def one_line(text: str, limit: int = 2000) -> str:
    """`printable` text of at most `limit` characters; line ends become spaces."""
    line = printable(" ".join(text.splitlines()))
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


# Control, format (bidirectional overrides), surrogate (undecodable bytes), line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def day_of(date: str) -> str:
    """A time in RFC 3339 as a person wants to read it: without the hours where it is the end of a day."""
    return date.removesuffix("T23:59:59Z")

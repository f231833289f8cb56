"""install.R, read as far as needed to see which of its statements only install packages by name.

What is understood is taken out of it: `install.packages("a")`, `install.packages(c("a", "b"), repos = "…")`, the same
of `BiocManager::install`, on the outermost level. All else stays, line for line, and is run.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(
    r"(?P<comment>\#[^\n]*)"
    r"|(?P<raw>[rR][\"']-*[(\[{])"
    r"|(?P<string>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')"
    r"|(?P<name>`[^`\n]*`|[A-Za-z.][A-Za-z0-9._]*)"
    r"|(?P<number>[0-9][A-Za-z0-9.+]*)"
    r"|(?P<newline>\n)"
    r"|(?P<blank>[ \t\r\f]+)"
    r"|(?P<open>[(\[{])|(?P<close>[)\]}])"
    r"|(?P<end>;)|(?P<comma>,)"
    r"|(?P<operator><<?-|->>?|%[^%\n]*%|:::?|[<>=!]=|&&?|\|[|>]?|[-+*/^<>=!~?:$@\\])",
    re.DOTALL,
)
_PACKAGE = re.compile(r"[A-Za-z][A-Za-z0-9.]*[A-Za-z0-9]\Z")
_CRAN = re.compile(
    r"https?://(?:cran\.[a-z0-9.-]+|[a-z0-9.-]*\.cran\.[a-z0-9.-]+|cloud\.r-project\.org|mran\.microsoft\.com"
    r"|packagemanager\.(?:posit\.co|rstudio\.com)|p3m\.dev|[a-z0-9.-]+/(?:[A-Za-z0-9./-]+/)?(?:CRAN|cran))(?:/[^\"']*)?\Z"
)
"""Addresses of CRAN: any mirror will do."""

_HARMLESS = frozenset(
    ("dependencies", "deps", "quiet", "verbose", "Ncpus", "clean", "ask", "update", "upgrade", "force", "keep_outputs")
)
_CONTROL = frozenset(("if", "while", "for", "function"))
_LOADS = frozenset(("library", "require", "requireNamespace", "loadNamespace"))


@dataclass(frozen=True)
class Install:
    """A package that a statement asks for.

    Attributes:
        name: As CRAN has it.
        line: Of the script, from 1.
    """

    name: str
    line: int


@dataclass(frozen=True)
class Script:
    """What is made of an install.R.

    Attributes:
        installs: What its plain statements install.
        rest: The script with blanks in their place.
        runs: Whether anything is left in it.
        mentions: Packages that what is left loads or calls.
    """

    installs: tuple[Install, ...]
    rest: str
    runs: bool
    mentions: tuple[str, ...]


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int
    line: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def read_script(text: str, has: Callable[[str], bool]) -> Script:
    """Read an install.R. What is not understood, be it malformed, stays in it as it is.

    Args:
        has: Whether Debian has a package: `BiocManager::install` is run unless it has all of its packages.
    """
    tokens = _tokens(text)
    if tokens is None:
        return Script((), text, True, ())
    vectors = _vectors(tokens)
    installs: list[Install] = []
    pieces: list[str] = []
    done = 0
    kept: list[_Token] = []
    for statement in _statements(tokens):
        names = _installed(statement, vectors)
        if names is None or (statement[0].text == "BiocManager" and not all(map(has, names))):
            kept += [*statement, _Token("newline", "\n", statement[-1].end, statement[-1].line)]
            continue
        installs += [Install(name, statement[0].line) for name in names]
        start, end = statement[0].start, statement[-1].end
        pieces += [text[done:start], re.sub(r"[^\n]", " ", text[start:end])]
        done = end
    # A vector of names alone does nothing, and which CRAN is asked is the site's choice.
    runs = any(not _is_vector(statement) and not _sets_cran(statement) for statement in _statements(kept))
    return Script(tuple(installs), "".join((*pieces, text[done:])), runs, _mentions(kept))


def _tokens(text: str) -> list[_Token] | None:
    """The tokens without blanks and comments; None for what this cannot read."""
    found, position, line = [], 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup == "raw":
            return None
        kind = match.lastgroup or ""
        if kind not in ("comment", "blank"):
            found.append(_Token(kind, match[0], position, line))
        line += match[0].count("\n")
        position = match.end()
    return found


def _statements(tokens: Sequence[_Token]) -> list[list[_Token]]:
    """The statements of the outermost level."""
    found: list[list[_Token]] = []
    now: list[_Token] = []
    opened: list[bool] = []
    waiting = False
    for token in tokens:
        if token.kind == "newline" and (opened or waiting or not now):
            continue
        if not opened and token.kind in ("newline", "end"):
            found += [now] if now else []
            now, waiting = [], False
            continue
        if token.kind == "open":
            opened.append(bool(now) and token.text == "(" and now[-1].text in _CONTROL)
            waiting = False
        elif token.kind == "close":
            # What follows `if (…)` belongs to it, on whatever line.
            waiting = opened.pop() if opened else False
        else:
            waiting = token.kind in ("operator", "comma") or token.text in ("else", "repeat")
        now.append(token)
    return [*found, now] if now else found


def _installed(statement: Sequence[_Token], vectors: dict[str, list[str]]) -> list[str] | None:
    """What a statement installs, None if it is no plain one."""
    words = [token.text for token in statement]
    for head in (["install.packages"], ["utils", "::", "install.packages"], ["BiocManager", "::", "install"]):
        if words[: len(head) + 1] == [*head, "("] and words[-1] == ")":
            break
    else:
        return None
    arguments = _arguments(statement[len(head) + 1 : -1])
    names: list[str] | None = None
    for number, (name, value) in enumerate(arguments or [("?", [])]):
        if name in ("", "pkgs") and (name == "pkgs" or number == 0) and names is None:
            names = _strings(value)
            if names is None and len(value) == 1 and value[0].kind == "name":
                names = vectors.get(value[0].text)
            if names is None:
                return None
        elif name == "repos":
            if not _is_cran(value):
                return None
        elif name not in _HARMLESS or any(token.kind not in ("name", "number", "string") for token in value):
            return None
    return names if names and all(map(_PACKAGE.match, names)) else None


def _arguments(tokens: Sequence[_Token]) -> list[tuple[str, list[_Token]]] | None:
    """The arguments of a call: name or "", value. None where brackets do not match."""
    parts: list[list[_Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token.kind == "open") - (token.kind == "close")
        if depth < 0:
            return None
        if token.kind == "comma" and depth == 0:
            parts.append([])
        elif token.kind != "newline":
            parts[-1].append(token)
    named = [len(part) > 1 and part[0].kind == "name" and part[1].text == "=" for part in parts]
    return [(part[0].text, part[2:]) if has else ("", part) for part, has in zip(parts, named, strict=True)]


def _strings(tokens: Sequence[_Token]) -> list[str] | None:
    """`"a"` or `c("a", "b")`, else None."""
    tokens = [token for token in tokens if token.kind != "newline"]
    if len(tokens) == 1 and tokens[0].kind == "string":
        return [tokens[0].text[1:-1]]
    if len(tokens) < 4 or tokens[0].text != "c" or tokens[1].text != "(" or tokens[-1].text != ")":
        return None
    inner = tokens[2:-1]
    if any(token.kind != ("string", "comma")[number % 2] for number, token in enumerate(inner)):
        return None
    return [token.text[1:-1] for token in inner if token.kind == "string"]


def _is_vector(statement: Sequence[_Token]) -> bool:
    return len(statement) > 2 and statement[1].text in ("<-", "=") and _strings(statement[2:]) is not None


def _sets_cran(statement: Sequence[_Token]) -> bool:
    if [token.text for token in statement[:2]] != ["options", "("] or statement[-1].text != ")":
        return False
    arguments = _arguments(statement[2:-1])
    return arguments is not None and [name for name, _ in arguments] == ["repos"] and _is_cran(arguments[0][1])


def _is_cran(value: Sequence[_Token]) -> bool:
    """`"https://cran…"`, `c("…")` or `c(CRAN = "…")`."""
    places = _strings([token for token in value if token.text not in ("CRAN", "=")])
    return bool(places) and all(map(_CRAN.match, places or []))


def _vectors(tokens: Sequence[_Token]) -> dict[str, list[str]]:
    """Names that stand for strings, whatever the rest of the script does: each is set once."""
    written = Counter(before.text for before, after in itertools.pairwise(tokens) if after.text in ("<-", "=", "<<-"))
    found = {}
    for statement in _statements(tokens):
        name = statement[0].text
        if _is_vector(statement) and written[name] == 1:
            found[name] = _strings(statement[2:]) or []
    return found


def _mentions(tokens: Sequence[_Token]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for number, token in enumerate(tokens[:-2]):
        after, argument = tokens[number + 1], tokens[number + 2]
        name = ""
        if token.kind == "name" and after.text in ("::", ":::"):
            name = token.text
        elif token.text in _LOADS and after.text == "(" and argument.kind in ("name", "string"):
            name = argument.text.strip("\"'")
        if _PACKAGE.match(name):
            found[name] = None
    return tuple(found)

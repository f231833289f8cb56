"""What the cells of notebooks ask for besides Python's own imports: `!pip install x`, `%load_ext x`."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from hpcbinder.notebooks.reading import Notebook

_PIP = re.compile(
    r"^[ \t]*[!%]+[ \t]*(?:sudo[ \t]+)?"
    r"(?:(?:\{sys\.executable\}|\$\{?sys\.executable\}?|python[23]?|py)[ \t]+-m[ \t]+)?"
    r"(?:uv[ \t]+)?pip[23]?[ \t]+install[ \t]+(?P<rest>.*)$",
    re.MULTILINE,
)
_EXTENSION = re.compile(r"^[ \t]*%(?:load_ext|reload_ext)[ \t]+(?P<module>[A-Za-z_][\w.]{0,100})[ \t]*$", re.MULTILINE)
_PYLAB = re.compile(r"^[ \t]*%pylab\b", re.MULTILINE)
_BUILT_IN = frozenset({"autoreload", "storemagic", "cythonmagic", "rmagic", "sympyprinting"})
"""Extensions that IPython has, or once had, itself."""
_WITH_VALUE = frozenset(
    [
        "-r",
        "--requirement",
        "-c",
        "--constraint",
        "-i",
        "--index-url",
        "--extra-index-url",
        "-f",
        "--find-links",
        "-t",
        "--target",
        "--prefix",
        "--root",
        "--proxy",
        "--timeout",
        "--retries",
        "--cache-dir",
        "--trusted-host",
        "--progress-bar",
        "-e",
        "--editable",
        "--python",
        "--src",
        "--global-option",
        "--install-option",
        "--platform",
        "--python-version",
        "--upgrade-strategy",
        "--root-user-action",
    ]
)
_TOLD = frozenset({"-r", "--requirement", "-e", "--editable"})
"""Options that install something, whose value is told."""
_LONGEST = 2_000
_MOST = 500


@dataclass(frozen=True)
class Install:
    """A word of a cell's `pip install`.

    Attributes:
        text: The word: a requirement, a URL, a folder; of a file or an editable project with its option before it.
        file: Path of the notebook.
        cell: Number of the code cell.
    """

    text: str
    file: str
    cell: int


def pip_installs(notebook: Notebook) -> tuple[Install, ...]:
    """What the cells of a notebook would have pip install. Nothing is checked: it is the notebook's text."""
    found: list[Install] = []
    for cell in notebook.cells:
        if "pip" not in cell.source:
            continue
        for match in _PIP.finditer(cell.source):
            found += [Install(word, notebook.path, cell.number) for word in _words(match["rest"])]
            if len(found) > _MOST:
                return tuple(found[:_MOST])
    return tuple(found)


def extensions(source: str) -> list[str]:
    """The modules that a cell loads by IPython's words."""
    found = [match["module"] for match in _EXTENSION.finditer(source)] if "load_ext" in source else []
    if "%pylab" in source and _PYLAB.search(source):
        found += ["numpy", "matplotlib"]
    return [module for module in found if module not in _BUILT_IN]


def _words(rest: str) -> list[str]:
    if len(rest) > _LONGEST:
        return []
    try:
        lexer = shlex.shlex(rest, posix=True, punctuation_chars=";&|()")
        lexer.whitespace_split = True
        lexer.commenters = "#"
        words = list(lexer)
    except ValueError:
        return []
    found: list[str] = []
    option = ""
    for word in words:
        if re.fullmatch(r"[;&|()]+|[0-9]?>.*", word):
            break
        if option:
            if option in _TOLD and word.isprintable():
                found.append(f"{option} {word}")
            option = ""
        elif word.startswith("-"):
            option = word if word in _WITH_VALUE else ""
        elif word.isprintable() and word.strip():
            found.append(word)
    return found

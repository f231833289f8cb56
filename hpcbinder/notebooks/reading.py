"""Notebooks as they lie in a repository: whatever a file says, what comes of it is small, plain and safe.

Format: https://nbformat.readthedocs.io/en/latest/format_description.html; version 3 kept its cells in worksheets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpcbinder.text import one_line

LIMIT = 128 << 20
"""Bytes of a notebook that is read; pictures in the outputs make honest ones large."""
_MOST_VALUES = 10_000_000
"""Values of its JSON, about: each becomes an object in memory."""
_MOST_CELLS = 20_000
_MOST_SOURCE = 1 << 20
"""Characters of one cell."""
_PYTHON = re.compile(r"python|conda|pypy|sage|xpython", re.I)
_LANGUAGES = {"ir": "r", "r": "r", "irkernel": "r", "bash": "bash", "octave": "octave"}
_DOWNLOAD = re.compile(
    r"^[ \t]*[!%][ \t]*(?P<shell>wget|curl|git[ \t]+clone|(?:pip3?|conda|mamba|apt|apt-get)[ \t]+install)\b"
    r"|^[ \t]*(?P<script>wget|curl|git[ \t]+clone)[ \t]+[^\s=.(]"
    r"|\b(?P<python>urlretrieve|requests\.get|urlopen)\(",
    re.M,
)


class NotANotebook(Exception):
    """The file is none, or none that can be read; the text is one line."""


@dataclass(frozen=True)
class Cell:
    """One code cell that is not empty.

    Attributes:
        index: Its place among all cells, from 0.
        number: Its place among the code cells, from 1: `In [N]` when all are run from the top.
        source: Its text.
        saved: Name of the error that its saved output holds, "" for none.
        may_raise: It is tagged as one that raises an exception.
        downloads: The word in it that fetches something (`wget`, `pip install`), "" for none.
    """

    index: int
    number: int
    source: str
    saved: str = ""
    may_raise: bool = False
    downloads: str = ""


@dataclass(frozen=True)
class Notebook:
    """A notebook.

    Attributes:
        path: Below the repository's root, POSIX.
        language: Of its kernel, in lower case; "" if it does not say.
        kernel: Name of the kernel it asks for, "" for none.
        cells: Its code cells.
        allow_errors: Its metadata let every cell fail.
        version: Of the language that it was last run with (`3.8.10`), "" if it does not say.
    """

    path: str
    language: str
    kernel: str
    cells: tuple[Cell, ...]
    allow_errors: bool = False
    version: str = ""


def read_notebook(path: str, raw: bytes) -> Notebook:
    """Read a notebook, of version 3 or 4.

    Raises:
        NotANotebook: It cannot be read as one.
    """
    if len(raw) > LIMIT:
        raise NotANotebook(f"larger than {LIMIT >> 20} MiB")
    if not raw.strip():
        raise NotANotebook("an empty file")
    if sum(map(raw.count, (b"[", b"{", b",", b":"))) > _MOST_VALUES:
        raise NotANotebook("made of more values than any notebook")
    try:
        data = json.loads(raw.decode("utf-8-sig"))
    except RecursionError as error:
        raise NotANotebook("nested too deep") from error
    except ValueError as error:
        raise NotANotebook(f"no JSON: {one_line(str(error), 100)}") from error
    if not isinstance(data, dict):
        raise NotANotebook("no JSON object")
    version = data.get("nbformat")
    if version not in (3, 4):
        raise NotANotebook(f"of notebook format {one_line(str(version), 20)}, not 3 or 4")
    found = _cells(data)
    if len(found) > _MOST_CELLS:
        raise NotANotebook(f"more than {_MOST_CELLS} cells")
    metadata = _dict(data.get("metadata"))
    spec = _dict(metadata.get("kernelspec"))
    kernel = _text(spec.get("name"))
    info = _dict(metadata.get("language_info"))
    said = _text(spec.get("language")) or _text(info.get("name"))
    cells = tuple(_code(found))
    language = _language(said, kernel) or next((_text(c.get("language")).lower() for c in found if "language" in c), "")
    execution = _dict(metadata.get("execution"))
    allowed = metadata.get("allow_errors") is True or execution.get("allow_errors") is True
    return Notebook(path, language, kernel, cells, allowed, _text(info.get("version")))


def _cells(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "worksheets" in data:
        sheets = data["worksheets"] if isinstance(data["worksheets"], list) else []
        cells = [cell for sheet in sheets for cell in _list(_dict(sheet).get("cells"))]
    else:
        cells = _list(data.get("cells"))
    if any(not isinstance(cell, dict) for cell in cells):
        raise NotANotebook("a cell that is no JSON object")
    return cells


def _code(cells: list[dict[str, Any]]) -> list[Cell]:
    found: list[Cell] = []
    for index, cell in enumerate(cells):
        source = _source(cell.get("source", cell.get("input", "")))
        if cell.get("cell_type") != "code" or not source.strip():
            continue
        tags = _list(_dict(cell.get("metadata")).get("tags"))
        match = _DOWNLOAD.search(source)
        found.append(
            Cell(
                index=index,
                number=len(found) + 1,
                source=source,
                saved=_saved(cell),
                may_raise="raises-exception" in tags,
                downloads=one_line(match[match.lastgroup or 0], 40) if match else "",
            )
        )
    return found


def _saved(cell: Mapping[str, Any]) -> str:
    for output in _list(cell.get("outputs")):
        kind = _dict(output).get("output_type")
        if kind in ("error", "pyerr"):
            return _text(output.get("ename")) or "error"
    return ""


def _source(value: Any) -> str:
    text = value if isinstance(value, str) else "".join(part for part in _list(value) if isinstance(part, str))
    return text[:_MOST_SOURCE]


def _language(said: str, kernel: str) -> str:
    if said:
        return "python" if said.lower() in ("ipython", "python2", "python3") else said.lower()
    if kernel.lower() in _LANGUAGES:
        return _LANGUAGES[kernel.lower()]
    if kernel.lower().startswith("julia"):
        return "julia"
    return "python" if _PYTHON.match(kernel) else ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return one_line(value, 100).strip() if isinstance(value, str) else ""

"""Parameters of notebooks: as papermill's command line takes them, and as tables for many runs."""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import json
import keyword
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcbinder.errors import UsageError
from hpcbinder.text import one_line

_LIMIT = 16 << 20
"""Bytes of a file of parameters."""
_MOST_ROWS = 100_000
_MOST_VALUES = 1_000_000
"""Values in one file: of a YAML file whose aliases multiply, too."""
_LONGEST_NAME = 200

Values = dict[str, Any]
"""Name -> what JSON can say."""


def typed(text: str) -> Any:
    """What a word of a command line stands for (papermill's `-p`): True, False, None, a number, else the text."""
    known = {"True": True, "False": False, "None": None}
    if text in known:
        return known[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parameters(words: Sequence[str], raw: Sequence[str], files: Sequence[Path]) -> Values:
    """What `-f`, `-p` and `-r` say together; later ones win, in this order.

    Args:
        words: `NAME=VALUE`, the value as `typed` has it.
        raw: `NAME=VALUE`, the value a text.
        files: YAML, or JSON if they are called so.

    Raises:
        UsageError: One cannot be read, or names what no variable can be called.
    """
    found: Values = {}
    for path in files:
        content = _read(path)
        if not isinstance(content, dict):
            raise UsageError("not names and values", where=one_line(str(path)))
        found |= _named(content, one_line(str(path)))
    for flag, pairs in (("-p", words), ("-r", raw)):
        for word in pairs:
            name, equals, value = word.partition("=")
            if not equals:
                raise UsageError(f"{flag} takes NAME=VALUE, not '{one_line(word, 80)}'")
            found[_name(name, flag)] = typed(value) if flag == "-p" else value
    return found


def rows(arrays: Sequence[str]) -> list[Values] | None:
    """The rows of `--array`: each is `NAME=VALUE,VALUE,…` or a table; of several, all combinations. None without any.

    A table is a CSV file whose first line has the names, where an empty field leaves the notebook its own value, or a
    list of objects in a YAML or JSON file.

    Raises:
        UsageError: One cannot be meant or read, or two name the same parameter.
    """
    if not arrays:
        return None
    columns = [_sweep(word) if _is_sweep(word) else _table(Path(word)) for word in arrays]
    count = 1
    seen: set[str] = set()
    for word, column in zip(arrays, columns, strict=True):
        names = {name for row in column for name in row}
        if twice := sorted(names & seen):
            raise UsageError(f"--array {one_line(word, 80)}: {twice[0]} is in another --array already")
        seen |= names
        count *= len(column)
    if count > _MOST_ROWS:
        raise UsageError(f"--array: {count} combinations, {_MOST_ROWS} is the limit")
    return [{k: v for part in parts for k, v in part.items()} for parts in itertools.product(*columns)]


def _is_sweep(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return bool(equals) and name.isidentifier()


def _sweep(word: str) -> list[Values]:
    name, _, values = word.partition("=")
    return [{_name(name, "--array"): typed(value)} for value in values.split(",")]


def _table(path: Path) -> list[Values]:
    where = one_line(str(path))
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        found = _csv(path, where)
    else:
        content = _read(path)
        if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
            raise UsageError("not a list of objects, one for each run", where=where)
        found = [_named(row, where) for row in content]
    if not found:
        raise UsageError("a table without rows", where=where)
    return found


def _csv(path: Path, where: str) -> list[Values]:
    lines = csv.reader(io.StringIO(_text(path), newline=""), skipinitialspace=True, strict=True)
    found: list[Values] = []
    try:
        names = [_name(word.strip(), where) for word in next(lines, [])]
        if len(set(names)) < len(names):
            raise UsageError("names a parameter twice", where=f"{where}:1")
        for row in lines:
            fields = [field.strip() for field in row]
            if not any(fields):
                continue
            if len(fields) != len(names):
                raise UsageError(f"{len(fields)} fields under {len(names)} names", where=f"{where}:{lines.line_num}")
            found.append({name: typed(field) for name, field in zip(names, fields, strict=True) if field})
            if len(found) > _MOST_ROWS:
                raise UsageError(f"more than {_MOST_ROWS} rows", where=where)
    except csv.Error as error:
        raise UsageError(f"no CSV: {one_line(str(error), 100)}", where=f"{where}:{lines.line_num}") from None
    return found


def _name(text: str, where: str) -> str:
    """The name, if a variable can have it: it becomes code in a cell."""
    if not text.isidentifier() or keyword.iskeyword(text) or len(text) > _LONGEST_NAME:
        raise UsageError(f"{where}: '{one_line(text, 80)}' is no name of a parameter")
    return text


def _named(content: Mapping[Any, Any], where: str) -> Values:
    return {_name(name if isinstance(name, str) else str(name), where): value for name, value in content.items()}


def _text(path: Path) -> str:
    where = one_line(str(path))
    try:
        with path.open("rb") as file:
            raw = file.read(_LIMIT + 1)
    except OSError as error:
        hint = "--array takes NAME=VALUE,VALUE or a file" if isinstance(error, FileNotFoundError) else None
        raise UsageError(f"cannot be read: {error.strerror}", where=where, hint=hint) from None
    if len(raw) > _LIMIT:
        raise UsageError(f"larger than {_LIMIT >> 20} MiB", where=where)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError("not UTF-8", where=where) from None


def _read(path: Path) -> Any:
    """What a YAML or JSON file says, as plain values."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    where, text = one_line(str(path)), _text(path)
    try:
        content = json.loads(text) if path.suffix.lower() == ".json" else YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsageError(f"no YAML: {one_line(str(error.problem), 100)}", where=f"{where}{line}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot be read: {one_line(str(error), 100)}", where=where) from None
    return _plain(content, where, itertools.count())


def _plain(value: Any, where: str, counted: Iterable[int], depth: int = 0) -> Any:
    """The same without what JSON cannot say: times become text, as papermill has them."""
    if next(iter(counted)) > _MOST_VALUES or depth > 100:
        raise UsageError("more values, or deeper ones, than parameters have", where=where)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return [_plain(each, where, counted, depth + 1) for each in value]
    if isinstance(value, dict) and all(isinstance(key, (str, int, float, bool)) for key in value):
        return {str(key): _plain(each, where, counted, depth + 1) for key, each in value.items()}
    raise UsageError(f"a value of a kind that no parameter has: {type(value).__name__}", where=where)

"""What a task's files are called: so that a person sees which is which, and any file system and URL takes it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

_LONGEST_VALUE = 24
_LONGEST = 120
_OTHER = re.compile(r"[^A-Za-z0-9._+=-]+")


def names(notebooks: Sequence[str], varied: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of tasks, without an ending; no two are the same.

    Args:
        notebooks: Path of each task's notebook.
        varied: The parameters of each that are not the same for all.
    """
    if len(notebooks) == 1:
        return [_plain(_stem(notebooks[0])) or "notebook"]
    width = len(str(len(notebooks) - 1))
    found = []
    for number, (path, values) in enumerate(zip(notebooks, varied, strict=True)):
        parts = [_plain(_stem(path))]
        parts += [_plain(f"{name}={_short(value)}") for name, value in values.items()]
        found.append("-".join([f"{number:0{width}}", *filter(None, parts)])[:_LONGEST].rstrip(".-"))
    return found


def _stem(path: str) -> str:
    return PurePosixPath(path).name.removesuffix(".ipynb")


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{len(value)}_values"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{len(value)}_values" if len(value) > 3 else "_".join(map(_short, value))
    return str(value)[:_LONGEST_VALUE]


def _plain(text: str) -> str:
    # A hidden file, or one that looks like an option, is nobody's wish.
    return _OTHER.sub("_", text).lstrip(".-")[:_LONGEST]

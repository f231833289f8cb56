"""The repository's own code, looked through up to limits and never run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from hpcbinder.errors import DetectError
from hpcbinder.notebooks import LIMIT, NotANotebook, Notebook, read_notebook
from hpcbinder.plan.tree import Item, Tree

MOST_NOTEBOOKS = 2_000
MOST_SCRIPTS = 2_000
NOTEBOOK_BYTES = 512 << 20
"""Of all notebooks that are read; pictures in them make honest ones large."""
SCRIPT_BYTES = 16 << 20
SCRIPT_LIMIT = 1 << 20
"""Bytes of one script: what is longer was generated."""

_SKIPPED = frozenset({".ipynb_checkpoints", "__pycache__", "node_modules", "site-packages", ".venv", "venv", ".tox"})


@dataclass(frozen=True)
class Script:
    """A Python file.

    Attributes:
        path: Below the repository's root, POSIX.
        text: What is in it.
    """

    path: str
    text: str


@dataclass(frozen=True)
class Code:
    """Notebooks and Python files of a repository.

    Attributes:
        notebooks: Those that can be read, in the order of their names.
        scripts: Those that are no longer than `SCRIPT_LIMIT`; nearest to the root first.
        left_out: File -> why it was not looked at, or that with it looking ended.
    """

    notebooks: tuple[Notebook, ...] = ()
    scripts: tuple[Script, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)


def read_code(tree: Tree) -> Code:
    """Read the notebooks and Python files of a repository, without those that tools leave behind."""
    notebooks: list[Item] = []
    scripts: list[Item] = []
    for item in tree.items.values():
        if item.kind != "file" or item.ignored or not item.path.endswith((".ipynb", ".py")):
            continue
        if _SKIPPED.isdisjoint(item.path.split("/")):
            (notebooks if item.path.endswith(".ipynb") else scripts).append(item)
    left_out: dict[str, str] = {}
    return Code(
        tuple(_notebooks(tree, sorted(notebooks, key=_natural), left_out)),
        tuple(_scripts(tree, sorted(scripts, key=_depth), left_out)),
        left_out,
    )


def _notebooks(tree: Tree, items: list[Item], left_out: dict[str, str]) -> list[Notebook]:
    found: list[Notebook] = []
    room = NOTEBOOK_BYTES
    for number, item in enumerate(items):
        if item.size <= LIMIT:
            room -= item.size
        if number >= MOST_NOTEBOOKS or room < 0:
            rest = len(items) - number
            left_out[item.path] = f"not looked at, like {rest - 1} more after it: there are too many notebooks"
            break
        try:
            if item.size > LIMIT:
                raise NotANotebook(f"larger than {LIMIT >> 20} MiB")
            with tree.open_item(item) as file:
                raw = file.read(item.size + 1)
            found.append(read_notebook(item.path, raw))
        except (NotANotebook, DetectError) as error:
            reason = error.message if isinstance(error, DetectError) else str(error)
            left_out[item.path] = f"cannot be read as a notebook: {reason}"
    return found


def _scripts(tree: Tree, items: list[Item], left_out: dict[str, str]) -> list[Script]:
    found: list[Script] = []
    room = SCRIPT_BYTES
    for number, item in enumerate(items):
        if item.size > SCRIPT_LIMIT:
            continue
        room -= item.size
        if number >= MOST_SCRIPTS or room < 0:
            rest = len(items) - number
            left_out[item.path] = f"not looked at, like {rest - 1} more after it: there are too many scripts"
            break
        try:
            with tree.open_item(item) as file:
                raw = file.read(item.size + 1)
        except DetectError as error:
            left_out[item.path] = f"cannot be read: {error.message}"
            continue
        found.append(Script(item.path, raw.decode("utf-8", "replace")))
    return found


def _natural(item: Item) -> list[tuple[int, str]]:
    """`2_plot` comes before `10_plot`, and what lies nearer to the root first."""
    # isdecimal: int() takes no superscript.
    parts = re.split(r"([0-9]+)", item.path)
    return [(item.path.count("/"), ""), *((int(part[:30]), "") if part.isdecimal() else (0, part) for part in parts)]


def _depth(item: Item) -> tuple[int, str]:
    return item.path.count("/"), item.path

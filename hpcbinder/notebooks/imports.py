"""What notebooks and scripts import, without running them.

A cell is Python with IPython's own words in it (magics, shell lines, questions): these are taken out, line for line.
Of what still does not parse, Python 2 mostly, the words are looked at (`older`).
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

from hpcbinder.notebooks.older import older_imports, plain_imports
from hpcbinder.notebooks.reading import Notebook

_STAYS_PYTHON = frozenset({"time", "timeit", "capture", "prun", "snakeviz", "memit", "mprun", "lprun", "px"})
"""Cell magics whose cell is Python all the same."""
_CATCHES = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_MOST = 20_000
"""Imports of a cell that is not parsed, and nodes of another's tree, times ten: what is larger was generated."""
_LONGEST = 200
_MOST_PARSED = 1 << 20
"""Characters of a script or cell that is parsed; of a longer one only the lines are looked at."""
_LONGEST_LINE = 100_000
"""Characters of a line in what is parsed: longer ones are data, or made to be deep."""
_MOST_CODE = 8 << 20
"""Characters of a notebook's code that are looked through."""


@dataclass(frozen=True)
class Import:
    """One thing that is imported.

    Attributes:
        module: Full name of the module.
        name: What is taken from it, "" for the module itself.
        file: Path below the repository's root.
        cell: Number of the code cell, 0 in a script.
        line: Line of the cell or script, from 1.
        optional: The code goes on without it (`try: … except ImportError`).
    """

    module: str
    name: str
    file: str
    cell: int
    line: int
    optional: bool = False

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def notebook_imports(notebook: Notebook) -> tuple[Import, ...]:
    """The imports of a notebook's cells, in their order; of a notebook that is not Python's none."""
    if notebook.language not in ("", "python"):
        return ()
    found: list[Import] = []
    left = _MOST_CODE
    for cell in notebook.cells:
        left -= len(cell.source)
        if left < 0:
            break
        found += code_imports(plain_python(cell.source), notebook.path, cell.number)
    return tuple(found)


def code_imports(source: str, file: str, cell: int = 0) -> tuple[Import, ...]:
    """The imports of a script or of a cell's Python."""
    if "import" not in source:
        return ()
    lines = source.splitlines(keepends=True)
    if len(source) > _MOST_PARSED or max(map(len, lines)) > _LONGEST_LINE:
        found = islice(plain_imports(lines), _MOST)
        return tuple(one for module, line in found for one in _one(module, "", file, cell, line, False))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Notebooks may await at their top.
            tree = compile(source, "<cell>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return tuple(_by_words(source, file, cell))
    assert isinstance(tree, ast.Module)
    return tuple(sorted(_walk(tree, file, cell), key=lambda found: found.line))


def plain_python(source: str) -> str:
    """A cell without what only IPython understands; each line stays where it is."""
    lines = source.splitlines()
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    if lines and (match := re.match(r"\s*%%(\w*)", lines[first])):
        if match[1] not in _STAYS_PYTHON:
            return ""
        lines[first] = ""
    return "\n".join(map(_plain_line, lines)) + "\n"


def _plain_line(line: str) -> str:
    bare = line.lstrip()
    if not ("%" in bare or "!" in bare or "?" in bare or bare[:1] in (",", ";", "/")):
        return line
    indent = line[: len(line) - len(bare)]
    if bare.startswith(("%", "!", "?", ",", ";", "/")):
        return f"{indent}pass"
    if re.match(r"[\w.*%]+\?{1,2}\s*$", bare):
        return f"{indent}pass"
    if match := re.match(r"([\w.,\s()\[\]'\"]+=\s*)[!%](?!=)", bare):
        return f"{indent}{match[1]}None"
    return line


def local_modules(paths: Iterable[str]) -> dict[str, frozenset[str]]:
    """The modules that a repository's own files are: folder ("" for the root) -> names that can be imported there.

    Args:
        paths: Of all its files, POSIX, below its root.
    """
    found: dict[str, set[str]] = {}
    for path in paths:
        if not path.endswith((".py", ".so", ".pyx", ".pyd")):
            continue
        folder, _, name = path.rpartition("/")
        known = folder in found
        found.setdefault(folder, set()).add(name.partition(".")[0])
        # A folder with code in it is a package, also without an __init__.py; and so are those it lies in.
        while folder and not known:
            above, _, name = folder.rpartition("/")
            known = above in found
            found.setdefault(above, set()).add(name)
            folder = above
    return {folder: frozenset(names) for folder, names in found.items()}


def is_local(module: Import, local: Mapping[str, Collection[str]]) -> bool:
    """Whether an import finds a file of the repository: beside who imports it, in a folder above, or in `src`."""
    folder = PurePosixPath(module.file).parent
    places = [_folder(folder), *map(_folder, folder.parents), "src", "lib"]
    return any(module.top in local.get(place, ()) for place in places)


def anywhere(module: Import, local: Mapping[str, Collection[str]]) -> bool:
    """Whether some folder of the repository has a module of that name: `sys.path` may lead there."""
    return any(module.top in names for names in local.values())


def _folder(path: PurePosixPath) -> str:
    return "" if str(path) == "." else str(path)


def _walk(tree: ast.Module, file: str, cell: int) -> Iterator[Import]:
    """Without recursion: a tree may be deeper than Python's stack."""
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    seen = 0
    while waiting and seen < _MOST * 10:
        node, optional = waiting.pop()
        seen += 1
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _one(alias.name, "", file, cell, node.lineno, optional)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names if node.level == 0 and node.module else ():
                name = "" if alias.name == "*" else alias.name
                yield from _one(node.module or "", name, file, cell, node.lineno, optional)
        elif isinstance(node, ast.Try):
            caught = optional or any(map(_forgives, node.handlers))
            waiting += [(child, caught) for child in (*node.body, *node.handlers)]
            waiting += [(child, optional) for child in (*node.orelse, *node.finalbody)]
        elif isinstance(node, ast.If) and _only_for_types(node.test):
            waiting += [(child, optional) for child in node.orelse]
        else:
            waiting += [(child, optional) for child in ast.iter_child_nodes(node)]


def _forgives(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(kind, ast.Name) and kind.id in _CATCHES for kind in kinds)


def _only_for_types(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"


def _by_words(source: str, file: str, cell: int) -> Iterator[Import]:
    for module, line, optional in older_imports(source):
        yield from _one(module, "", file, cell, line, optional)


def _one(module: str, name: str, file: str, cell: int, line: int, optional: bool) -> Iterator[Import]:
    fits = _NAME.fullmatch(module) and (not name or _NAME.fullmatch(name)) and len(module) + len(name) <= _LONGEST
    if fits and module != "__future__":
        yield Import(module, name, file, cell, line, optional)

"""Notebooks and scripts as text: what is in them and what they import, found without running any of it."""

from hpcbinder.notebooks.asking import Install, extensions, pip_installs
from hpcbinder.notebooks.imports import (
    Import,
    anywhere,
    code_imports,
    is_local,
    local_modules,
    notebook_imports,
    plain_python,
)
from hpcbinder.notebooks.reading import LIMIT, Cell, NotANotebook, Notebook, read_notebook

__all__ = [
    "LIMIT",
    "Cell",
    "Import",
    "Install",
    "NotANotebook",
    "Notebook",
    "anywhere",
    "code_imports",
    "extensions",
    "is_local",
    "local_modules",
    "notebook_imports",
    "pip_installs",
    "plain_python",
    "read_notebook",
]

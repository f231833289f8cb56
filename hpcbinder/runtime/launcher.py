"""The launcher as files: what starts a command in an image later, on any node, without hpcbinder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Traversable

_PACKAGE = "hpcbinder_launch"
"""The launcher's name in its folder: never `hpcbinder`, which may be importable too, in another version."""

_START = f'''"""Starts what launch.json describes. Made by hpcbinder, which also takes it away again."""

import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here))

from {_PACKAGE}.main import main

sys.exit(main(here, sys.argv[1:]))
'''


def launcher_files(description: Mapping[str, Any], folder: Path) -> tuple[list[str], dict[str, bytes]]:
    """A launcher, for a kernel (its connection file is the one argument) or for a command (without an argument).

    Args:
        description: What it starts (`describe`).
        folder: Where the files will lie.

    Returns:
        The command line that starts it, and every file: path below the folder -> content. A folder's own files come
        before those of folders in it.
    """
    files = dict(_modules(resources.files("hpcbinder.runtime.launch"), _PACKAGE))
    files["launch.py"] = _START.encode()
    files["launch.json"] = (json.dumps(description, indent=1, ensure_ascii=True) + "\n").encode()
    # -I: nothing of the person's environment or folder is imported; -S: nor anything installed.
    return [_python(), "-I", "-S", str(folder / "launch.py")], files


def _modules(package: Traversable, below: str) -> Iterator[tuple[str, bytes]]:
    items = sorted(package.iterdir(), key=lambda item: item.name)
    yield from ((f"{below}/{item.name}", item.read_bytes()) for item in items if item.name.endswith(".py"))
    for item in items:
        if item.is_dir() and item.name != "__pycache__":
            yield from _modules(item, f"{below}/{item.name}")


def _python() -> str:
    """The interpreter below a virtual environment, so that a kernel outlives hpcbinder's own environment."""
    base: str = getattr(sys, "_base_executable", "") or sys.executable
    return base if Path(base).is_file() else sys.executable

"""Imports follow the way of the data: no room reaches up, or into a sibling's inside (docs/development.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [
    {
        "squashfs",
        "sif",
        "model",
        "contract",
        "debian",
        "errors",
        "notebooks",
        "process",
        "progress",
        "regular",
        "text",
        "buildpacks",
    },
    {"image", "catalog", "config", "output", "registry"},
    {"source", "plan", "convert", "runtime", "look"},
    {"apt", "engine", "bases", "conda", "interpreters", "lock", "register", "scheduler", "wheels"},
    {
        "batch",
        "builders",
        "build",
        "converting",
        "doctor",
        "elsewhere",
        "extending",
        "gc",
        "jupyter",
        "jupyterhub",
        "placing",
        "publish",
        "repointing",
        "starting",
        "statistics",
        "transport",
        "verify",
        "warming",
    },
    {"cli"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = [p for p in sorted((ROOT / "hpcbinder").rglob("*.py")) if "buildpacks" not in p.parts]


def room(name: str) -> str:
    """`hpcbinder.plan.render` is in room `plan`."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (
                f"{node.module}.{alias.name}" if node.module == "hpcbinder" else node.module for alias in node.names
            )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    mine = path.relative_to(ROOT / "hpcbinder").parts[0].removesuffix(".py")
    if mine in ("__init__", "__main__"):
        return
    for name in imports(path):
        theirs = room(name)
        if not name.startswith("hpcbinder.") or theirs in (mine, "__version__"):
            continue
        assert FLOOR[theirs] <= FLOOR[mine], f"{path} imports {name}, from a floor above"
        # A room is asked by its package's names; `launch` is a program of its own that registered kernels carry.
        deep = name.split(".")[2:]
        assert not deep or not (ROOT / "hpcbinder" / theirs / "/".join(deep)).with_suffix(".py").exists(), (
            f"{path} reaches into {name}"
        )


@pytest.mark.parametrize("path", sorted((ROOT / "buildpacks").rglob("*.py")), ids=lambda path: path.parent.name)
def test_buildpacks_import_only_the_public_plan(path: Path) -> None:
    assert {name for name in imports(path) if name.startswith("hpcbinder")} <= {"hpcbinder.plan"}

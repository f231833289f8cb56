"""Folders of interpreters like those that people have, made of this machine's own Python."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rig import Rig, packages

SYSTEM = Path("/usr/bin/python3").resolve()
"""The system's Python: the one that runs the tests may be another."""

VERSION = SYSTEM.name.removeprefix("python")
_UNUSED = shutil.ignore_patterns("test", "idlelib", "tkinter", "lib2to3", "ensurepip", "__pycache__", "config-*")


@pytest.fixture(scope="session")
def prefix(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter as uv keeps it; not to be changed."""
    packages.ensure(("python3", "libpython3-stdlib"))
    return make_prefix(tmp_path_factory.mktemp("uv") / "cpython-3-linux")


def make_prefix(prefix: Path) -> Path:
    """An interpreter's own folder, as uv and pyenv lay it out: Debian's Python, copied there."""
    (prefix / "bin").mkdir(parents=True)
    shutil.copy(SYSTEM, prefix / f"bin/{SYSTEM.name}")
    (prefix / "bin/python3").symlink_to(SYSTEM.name)
    shutil.copytree(f"/usr/lib/{SYSTEM.name}", prefix / f"lib/{SYSTEM.name}", symlinks=True, ignore=_UNUSED)
    return prefix


def pretend(prefix: Path, version: str, says: str = "") -> Path:
    """The layout of an interpreter, whose program is a shell script."""
    (prefix / "bin").mkdir(parents=True)
    (prefix / f"lib/python{version}").mkdir(parents=True)
    program = prefix / f"bin/python{version}"
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    return prefix


def replace_in(path: Path, old: bytes, new: bytes) -> None:
    """Change bytes of a file without changing its length."""
    content = path.read_bytes()
    assert old in content and len(new) <= len(old)
    path.write_bytes(content.replace(old, new.ljust(len(old), b"\0")))

"""What two ways of installing the same wheels left at one prefix, compared file by file; what need not be the same
bytes, by what it means."""

from __future__ import annotations

import ast
import csv
import marshal
import os
import stat
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uv

from hpcbinder.config import SiteConfig
from hpcbinder.model import Lock
from hpcbinder.squashfs import Image

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}"


class Tree:
    """Files below a prefix: path -> (mode, content); folders and links too."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[int, bytes]] = {}
        self.folders: dict[str, int] = {}
        self.links: dict[str, str] = {}

    @classmethod
    def of_folder(cls, prefix: Path) -> Tree:
        tree = cls()
        for path in sorted(prefix.rglob("*")):
            name = str(path.relative_to(prefix))
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                tree.links[name] = os.readlink(path)  # noqa: PTH115 - its text
            elif path.is_dir():
                tree.folders[name] = stat.S_IMODE(status.st_mode)
            else:
                tree.files[name] = (stat.S_IMODE(status.st_mode), path.read_bytes())
        return tree

    @classmethod
    def of_image(cls, image: Path, prefix: str) -> Tree:
        tree = cls()
        with Image.open(image) as opened:
            for path, node in opened.walk(prefix):
                name = path
                if not name:
                    continue
                if node.kind == "directory":
                    tree.folders[name] = node.mode
                elif node.kind == "file":
                    tree.files[name] = (node.mode, opened.read(f"{prefix}/{name}", 1 << 32))
                else:
                    tree.links[name] = node.target or node.kind
        return tree

    def without(self, other: Tree) -> Tree:
        """What another has not."""
        tree = Tree()
        tree.files = {name: value for name, value in self.files.items() if name not in other.files}
        tree.folders = dict(self.folders)
        tree.links = {name: value for name, value in self.links.items() if name not in other.links}
        return tree


def uv_install(lock: Lock, prefix: Path, site: SiteConfig, cache: Path) -> tuple[Tree, dict[str, float]]:
    """Install a lock with uv into a new venv, bytecode included.

    Returns:
        What the venv has of it, and seconds: `wall`, `cpu`.
    """
    import resource
    import time

    env = {"PATH": os.environ["PATH"], "HOME": str(cache), "UV_CACHE_DIR": str(cache), "LC_ALL": "C.UTF-8"}
    env |= {"PYC_INVALIDATION_MODE": "UNCHECKED_HASH", "UV_NO_CONFIG": "1"}
    if site.ca_certificates:
        env["SSL_CERT_FILE"] = str(site.ca_certificates)
    program = uv.find_uv_bin()
    subprocess.run(
        [program, "venv", "--quiet", "--no-project", "--python", sys.executable, prefix], env=env, check=True
    )
    empty = Tree.of_folder(prefix)
    requirements = prefix.parent / "requirements.txt"
    lines = [
        f"{p.name} @ {p.url}" if p.url else f"{p.name}=={p.version} {' '.join(f'--hash={h}' for h in p.hashes)}"
        for p in lock.packages
    ]
    requirements.write_text("\n".join(lines) + "\n")
    index = ["--default-index", site.pip_index_url] if site.pip_index_url else []
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--compile-bytecode", *index]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        [program, "pip", "install", *options, "--python", prefix / "bin/python", "-r", requirements],
        env=env,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = {
        "wall": time.monotonic() - begin,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }
    return Tree.of_folder(prefix).without(empty), spent


def differences(ours: Tree, theirs: Tree) -> list[str]:
    """Where what we made and what uv made are not alike."""
    return list(_differences(ours, theirs))


def _differences(ours: Tree, theirs: Tree) -> Iterator[str]:
    ignored = {".lock"}
    for name in sorted((ours.files.keys() ^ theirs.files.keys()) - ignored):
        yield f"{name}: only {'ours' if name in ours.files else 'theirs'}"
    for name in sorted(ours.folders.keys() ^ theirs.folders.keys()):
        if name in ours.folders or any(path.startswith(f"{name}/") for path in theirs.files):
            yield f"{name}/: only {'ours' if name in ours.folders else 'theirs'}"
    for name in sorted(ours.links.keys() | theirs.links.keys()):
        yield f"{name}: a link"
    for name in sorted(ours.files.keys() & theirs.files.keys()):
        (mode, mine), (their_mode, other) = ours.files[name], theirs.files[name]
        # RECORD is the installer's: pip's is nobody's program, uv's has the mode of the one in the wheel.
        if mode != their_mode and not name.endswith(".dist-info/RECORD"):
            yield f"{name}: {mode:o} and {their_mode:o}"
        if mine != other and _meaning(name, mine) != _meaning(name, other):
            yield f"{name}: other content"


def _meaning(name: str, content: bytes) -> Any:
    last = name.rpartition("/")[2]
    if ".dist-info/" in name and last == "INSTALLER":
        return "who installed it"
    if ".dist-info/" in name and last == "RECORD":
        return _record(content)
    if name.endswith(".pyc"):
        return content[:16], _code(marshal.loads(content[16:]))
    if name.startswith("bin/"):
        first, _, rest = content.partition(b"\n")
        tree = ast.parse(rest)
        imports = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        calls = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        return (
            first,
            [text for text in imports if text != "import sys"],
            [c for c in calls if c.startswith("sys.exit(")],
        )
    return content


def _record(content: bytes) -> set[tuple[str, ...]]:
    """Rows, but for what an installer may leave out (bytecode) or makes itself."""
    made = ("/RECORD", "/INSTALLER")
    rows = csv.reader(content.decode().splitlines())
    return {
        (os.path.normpath(row[0]),)
        if row[0].endswith(made) or "/bin/" in row[0]
        else (os.path.normpath(row[0]), *row[1:])
        for row in rows
        if row and not row[0].endswith(".pyc")
    }


def _code(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return value.replace(co_consts=()), value.co_filename, [_code(item) for item in value.co_consts]
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)

"""A repository as a buildpack sees it: names and texts, never running anything."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from hpcbinder.errors import DetectError
from hpcbinder.model import Checkout
from hpcbinder.plan.code import Code, read_code
from hpcbinder.plan.ignore import Ignore, parse_ignore
from hpcbinder.plan.tree import CONFIG_LIMIT, Item, Tree, scan, show

IGNORE_FILES = (".dockerignore", ".containerignore")

MAX_DOTS = 1000
"""In one line of TOML."""


class Repo:
    """The files of a checkout, with repo2docker's rule for where config files are.

    That rule (repo2docker `buildpacks/base.py`, `binder_dir` and `binder_path`): if there is a `binder/` or a
    `.binder/` folder, config files are looked for there and nowhere else, and files that only count in the root
    (setup.py, pyproject.toml) do not count at all.

    Attributes:
        tree: Snapshot of the names.
        binder_dir: Folder of the config files below the root; "" is the root itself.
        binder_name: `binder` or `.binder` as the repository names it, "" where there is none.
        ignore: The rules of `.dockerignore` and `.containerignore`, looked up as config files like repo2docker does.
        hidden: Names of config files that do not count, since other buildpacks were chosen.
    """

    def __init__(self, tree: Tree, binder_name: str, binder_dir: str, ignore: Ignore) -> None:
        self.tree = tree
        self.hidden: frozenset[str] = frozenset()
        self.binder_name = binder_name
        self.binder_dir = binder_dir
        self.ignore = ignore

    @cached_property
    def code(self) -> Code:
        """Notebooks and Python files, read when first asked for."""
        return read_code(self.tree)

    def config(self, name: str) -> str | None:
        """Path of a config file (`apt.txt`), None where there is none."""
        if name in self.hidden:
            return None
        return self._file(f"{self.binder_dir}/{name}" if self.binder_dir else name)

    def root_config(self, name: str) -> str | None:
        """Path of a file that counts in the root only, and not at all beside a binder folder (`setup.py`)."""
        return None if self.binder_name or name in self.hidden else self._file(name)

    def overlooked(self, name: str) -> str | None:
        """Path of a root file that would be a config file, were there no binder folder."""
        kind = self.tree.kind(name) if self.binder_name else None
        return None if kind in (None, "directory") else name

    def read_text(self, path: str, *, limit: int = CONFIG_LIMIT, utf16: bool = False) -> str:
        """Text of a config file (see `Tree.read_text`).

        Args:
            limit: Bytes it may have.
            utf16: It may be UTF-16 that begins with its BOM.

        Raises:
            DetectError: It cannot be read as text.
        """
        return self.tree.read_text(path, limit=limit, utf16=utf16)

    def read_toml(self, path: str, *, limit: int = CONFIG_LIMIT) -> dict[str, Any]:
        """A TOML file's content.

        Args:
            limit: Bytes it may have.

        Raises:
            DetectError: It cannot be read, or is not TOML (with the line).
        """
        return parse_toml(self.read_text(path, limit=limit), show(path))

    def check_script(self, path: str) -> str:
        """First line of a script without its `#!`, "" if it names no interpreter.

        Raises:
            DetectError: The line ends as on Windows, so that no kernel would find the interpreter.
        """
        with self.tree.open(path) as file:
            line = file.readline(4096)
        if not line.startswith(b"#!"):
            return ""
        if line.endswith((b"\r\n", b"\r")):
            raise DetectError(
                "has Windows line ends, with which it cannot run", where=f"{show(path)}:1", hint="convert with dos2unix"
            )
        return line[2:].strip().decode("utf-8", "replace")

    def resolve(self, path: str) -> str:
        """Real path below the root of a path that may lead over symlinks, or contain `..`.

        Raises:
            DetectError: It leaves the repository, or leads nowhere.
        """
        return self.tree.resolve(path)

    def is_file(self, path: str) -> bool:
        """A regular file is at exactly this path, no symlink followed."""
        return self.tree.kind(path) == "file"

    def is_dir(self, path: str) -> bool:
        """A folder is at exactly this path, no symlink followed; "" is the root."""
        return path == "" or self.tree.kind(path) == "directory"

    def files(self, under: str = "", *, ignored: bool = False) -> Iterator[Item]:
        """Files and symlinks.

        Args:
            under: Only those below this folder.
            ignored: Also those that an ignore file leaves out of the image.
        """
        prefix = f"{under}/" if under else ""
        return (item for item in self.tree.files() if item.path.startswith(prefix) and (ignored or not item.ignored))

    def _file(self, path: str) -> str | None:
        kind = self.tree.kind(path)
        if kind is None or kind == "directory":
            return None
        if kind == "symlink" and self.is_dir(self.tree.resolve(path)):
            return None
        return path


def open_repo(checkout: Checkout) -> Repo:
    """Look at a checkout.

    Raises:
        DetectError: It has both binder folders, names nested too deep, a symlink where it must not be, or an ignore
            file that cannot be read.
    """
    bare = Tree(checkout.root, {})
    name, folder = _binder_dir(bare)
    texts = []
    for ignore_name in IGNORE_FILES:
        path = f"{folder}/{ignore_name}" if folder else ignore_name
        if (checkout.root / path).is_symlink() or (checkout.root / path).is_file():
            texts.append((path, bare.read_text(path)))
    ignore = parse_ignore(texts)
    return Repo(scan(checkout.root, ignore), name, folder, ignore)


def _binder_dir(tree: Tree) -> tuple[str, str]:
    found = []
    for name in ("binder", ".binder"):
        path = tree.root / name
        if path.is_symlink():
            real = tree.resolve(name)
            if (tree.root / real).is_dir():
                found.append((name, real))
        elif path.is_dir():
            found.append((name, name))
    if len(found) == 2:
        raise DetectError("there are both a binder and a .binder folder", where="binder", hint="keep one of them")
    return found[0] if found else ("", "")


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Parse TOML.

    Args:
        where: File name for the message.

    Raises:
        DetectError: Malformed, with the line.
    """
    # Here and not above: `--help` needs none of it.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
    # The parser's time grows with the square of a key's parts: one line of `a.a.a…` would keep it for minutes.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > MAX_DOTS:
            raise DetectError(f"malformed TOML: a line with more than {MAX_DOTS} dots", where=f"{where}:{number}")
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        at = re.search(r" \(at line (\d+), column \d+\)$| \(at end of document\)$", message)
        line = at[1] if at and at[1] else str(text.count("\n") + 1)
        reason = message[: at.start()] if at else message
        raise DetectError(f"malformed TOML: {reason.lower()}", where=f"{where}:{line}") from None
    except RecursionError:
        raise DetectError("malformed TOML: nested too deep", where=where) from None
    return values

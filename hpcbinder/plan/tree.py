"""What lies in a checkout, and safe reading of it.

Nothing here follows a symlink out of the tree, opens a device or a pipe, or trusts a size.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from hpcbinder.errors import DetectError
from hpcbinder.plan.ignore import Ignore, Matched
from hpcbinder.text import printable

MAX_DEPTH = 128
"""Folders below one another. A path of 128 names of one letter is far from what people write, and well inside what
every tool further down the way can open."""

MAX_PATH = 3072
"""Bytes of a path below the root: with `/srv/repo` and a store's own path in front it stays below Linux' 4096."""

CONFIG_LIMIT = 1 << 20
"""Bytes a config file may have. The longest real requirements.txt with hashes are below half of it."""

Kind = Literal["file", "directory", "symlink", "special"]


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of the tree.

    Attributes:
        path: POSIX path below the root; undecodable bytes are surrogates (PEP 383).
        kind: `special` is a pipe, a socket or a device.
        size: Bytes of a file, else 0.
        executable: The owner may execute it.
        target: What a symlink says, else "".
        ignored: An ignore file leaves it out of the image.
    """

    path: str
    kind: Kind
    size: int = 0
    executable: bool = False
    target: str = ""
    ignored: bool = False


class Tree:
    """A snapshot of the names, kinds and sizes below a folder.

    Attributes:
        root: The folder.
        items: Path -> entry, in the order of their path's parts: a folder comes before what it holds.
    """

    def __init__(self, root: Path, items: dict[str, Item]) -> None:
        self.root = root
        self.items = items

    def kind(self, path: str) -> Kind | None:
        """Kind of the entry at exactly this path, None where there is none."""
        item = self.items.get(path)
        return item.kind if item else None

    def files(self) -> Iterator[Item]:
        """Files and symlinks, whether ignored or not."""
        return (item for item in self.items.values() if item.kind in ("file", "symlink"))

    def resolve(self, path: str) -> str:
        """Where a path really leads.

        Args:
            path: POSIX path below the root; symlinks in it are followed as long as they stay in the tree.

        Returns:
            The path of what it leads to, below the root ("" is the root).

        Raises:
            DetectError: It leaves the tree, goes in circles, is broken, or enters `.git`.
        """
        top = os.path.realpath(self.root)
        try:
            real = os.path.realpath(os.path.join(top, path), strict=True)  # noqa: PTH118 - surrogates, "" and ".."
        except (OSError, ValueError) as error:
            raise DetectError(f"symlink that leads nowhere: {_reason(error)}", where=show(path)) from None
        if real != top and not real.startswith(top.rstrip("/") + "/"):
            raise DetectError("symlink that leaves the repository", where=show(path), hint="put the file itself there")
        inside = real[len(top) :].lstrip("/")
        if ".git" in inside.split("/"):
            raise DetectError("symlink into .git", where=show(path))
        return inside

    def open(self, path: str) -> BinaryIO:
        """Open a regular file of the tree for reading, following symlinks inside the tree only.

        Raises:
            DetectError: Not a regular file, or it cannot be read.
        """
        return os.fdopen(self._open(self.resolve(path), path), "rb")

    def open_item(self, item: Item) -> BinaryIO:
        """Open a file of the snapshot, none of whose folders was a symlink.

        Raises:
            DetectError: It is not a regular file any more, or it cannot be read.
        """
        return os.fdopen(self._open(item.path, item.path), "rb", buffering=0)

    def _open(self, path: str, name: str) -> int:
        try:
            # O_NONBLOCK: a pipe put in the file's place must not hold us; it has no meaning for a regular file.
            fd = os.open(f"{os.fspath(self.root)}/{path}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise DetectError(f"cannot be read: {_reason(error)}", where=show(name)) from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise DetectError("is not a regular file", where=show(name))
        return fd

    def read_text(self, path: str, *, limit: int = CONFIG_LIMIT, utf16: bool = False) -> str:
        """Read a config file: UTF-8, with or without BOM; line ends become `\\n`.

        Args:
            path: POSIX path below the root.
            limit: Bytes it may have.
            utf16: UTF-16 that begins with its BOM will do as well, as PowerShell's `>` writes it. Only for files that
                no program of a build reads as they are.

        Raises:
            DetectError: Too long, neither of these, NUL characters (with file and line), or not a regular file.
        """
        with self.open(path) as file:
            raw = file.read(limit + 1)
        if len(raw) > limit:
            raise DetectError(f"is longer than {limit} bytes", where=show(path))
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            if not utf16:
                raise DetectError("is UTF-16", where=f"{show(path)}:1", hint="save it as UTF-8")
            raw = _utf8(raw, path)
        if (at := raw.find(b"\0")) >= 0:
            raise DetectError("has a NUL byte", where=f"{show(path)}:{_line_of(raw, at)}")
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            where = f"{show(path)}:{_line_of(raw, error.start)}"
            raise DetectError("is not UTF-8", where=where, hint="save it as UTF-8") from None
        return text.replace("\r\n", "\n").replace("\r", "\n")


def show(path: str) -> str:
    """A path for a message: on one line, without anything that moves a terminal, not endless."""
    text = printable(path)
    return text if len(text) <= 200 else f"{text[:199]}…"


def scan(root: Path, ignore: Ignore | None = None) -> Tree:
    """Look at everything below a folder but `.git`.

    Args:
        root: The folder.
        ignore: Marks entries; nothing is left out of the snapshot but what lies in a folder ignored as a whole.

    Raises:
        DetectError: A folder cannot be read, or names are nested too deep.
    """
    rules = ignore or Ignore()
    found: list[Item] = []
    pending: list[tuple[str, int, bool, Matched]] = [("", 0, False, rules.top)]
    top = os.fspath(root)
    while pending:
        folder, depth, hidden, above = pending.pop()
        prefix = f"{folder}/" if folder else ""
        try:
            with os.scandir(f"{top}/{folder}") as entries:
                for entry in entries:
                    if entry.name == ".git":
                        continue
                    path = prefix + entry.name
                    if len(path) > MAX_PATH // 4 and len(os.fsencode(path)) > MAX_PATH:
                        raise DetectError(f"path longer than {MAX_PATH} bytes", where=show(path))
                    ignored, matched = (True, above) if hidden else rules.match(path, above)
                    item = _item(entry, path, ignored)
                    found.append(item)
                    if item.kind == "directory":
                        if depth + 1 >= MAX_DEPTH:
                            message = f"folders nested more than {MAX_DEPTH} deep"
                            raise DetectError(message, where=show("/".join(path.split("/")[:3]) + "/…"))
                        pending.append((path, depth + 1, ignored and not rules.has_exceptions, matched))
        except OSError as error:
            raise DetectError(f"cannot be read: {_reason(error)}", where=show(folder or ".")) from None
    found.sort(key=lambda item: item.path.split("/"))
    return Tree(root, {item.path: item for item in found})


def _item(entry: os.DirEntry[str], path: str, ignored: bool) -> Item:
    if entry.is_symlink():
        return Item(
            path,
            "symlink",
            target=os.readlink(entry.path),  # noqa: PTH115 - a target may be no path a Path keeps as it is
            ignored=ignored,
        )
    if entry.is_dir(follow_symlinks=False):
        return Item(path, "directory", ignored=ignored)
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return Item(path, "special", ignored=ignored)
    return Item(path, "file", status.st_size, bool(status.st_mode & stat.S_IXUSR), ignored=ignored)


def _utf8(raw: bytes, path: str) -> bytes:
    try:
        return raw.decode("utf-16").encode()
    except UnicodeDecodeError as error:
        number = raw[: error.start].decode("utf-16", "replace").count("\n") + 1
        message = "begins as UTF-16 does, and is not"
        raise DetectError(message, where=f"{show(path)}:{number}", hint="save it as UTF-8") from None


def _line_of(raw: bytes, offset: int) -> int:
    return raw.count(b"\n", 0, offset) + 1


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()

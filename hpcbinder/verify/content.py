"""A repository's files: those in an image, or those of a folder instead; and a copy of them to work on."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from hpcbinder import contract
from hpcbinder.errors import ConvertError, UsageError
from hpcbinder.look import extract, open_image
from hpcbinder.model import Entry
from hpcbinder.runtime import PLAIN
from hpcbinder.squashfs import Image
from hpcbinder.text import one_line

_SKIPPED = frozenset({".git", ".hg", ".ipynb_checkpoints", ".svn", "__pycache__", "node_modules"})
_MOST = 200_000
"""Files of a repository that are looked at."""
_ROOTS = frozenset({"/", "/bin", "/etc", "/lib", "/opt", "/root", "/usr", "/var"})


class Content(Protocol):
    """A repository's files."""

    def paths(self) -> list[str]:
        """Of all ordinary files, POSIX, below the root, sorted."""

    def read(self, path: str, limit: int) -> bytes:
        """Up to `limit` bytes of one file, and one more if it has more.

        Raises:
            OSError, ConvertError: It cannot be read.
        """

    def copy(self, target: Path) -> None:
        """Make `target` a copy that its owner may write to.

        Raises:
            ConvertError, UsageError: It cannot be made.
        """


def repository_folder(entry: Entry) -> str:
    """Where in the image the repository lies; "" for one whose Dockerfile put it nowhere of its own."""
    level = entry.config.labels.get(f"{contract.LABEL_PREFIX}{contract.LEVEL_LABEL}")
    if level != contract.OWN_LEVEL:
        return contract.REPO_DIR
    # A Dockerfile puts the repository where it likes, usually into its working directory.
    place = entry.config.workdir.rstrip("/") or "/"
    return "" if place in _ROOTS else place


@contextmanager
def image_content(entry: Entry) -> Iterator[Content]:
    """The files that an image has.

    Raises:
        ConvertError: The image cannot be read, or holds no repository.
    """
    path = next((entry.formats[form] for form in ("squashfs", "sif", *PLAIN) if form in entry.formats), None)
    if path is None:
        raise ConvertError(f"{entry.id} has neither a SIF nor a squashfs", hint="hpcbinder build --format sif")
    with open_image(Path(path)) as image:
        folder = image.locate(repository_folder(entry)) if repository_folder(entry) else None
        if folder is None:
            raise ConvertError(f"{entry.id} has no folder with the repository", hint="give one with --checkout")
        yield _InImage(image, folder)


def folder_content(folder: Path) -> Content:
    """The files of a folder on this machine.

    Raises:
        UsageError: There is none.
    """
    if not folder.is_dir():
        raise UsageError("is no folder", where=one_line(str(folder)))
    return _InFolder(folder)


class _InImage:
    def __init__(self, image: Image, folder: str) -> None:
        self._image, self._folder = image, folder.strip("/")

    def paths(self) -> list[str]:
        # Links are left out: what they lead to is looked at where it is.
        found = (path.lstrip("/") for path, node in self._image.walk(self._folder) if node.kind == "file")
        return _sorted(found)

    def read(self, path: str, limit: int) -> bytes:
        with self._image.open_file(f"{self._folder}/{path}") as file:
            return file.read(limit + 1)

    def copy(self, target: Path) -> None:
        extract(self._image, self._folder, target, lambda _: None)
        _own(target)


class _InFolder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def paths(self) -> list[str]:
        return _sorted(self._walk())

    def _walk(self) -> Iterator[str]:
        for parent, folders, files in os.walk(self._folder):
            folders[:] = [name for name in folders if name not in _SKIPPED]
            for name in files:
                path = Path(parent, name)
                if path.is_file() and not path.is_symlink():
                    yield path.relative_to(self._folder).as_posix()

    def read(self, path: str, limit: int) -> bytes:
        with (self._folder / path).open("rb") as file:
            return file.read(limit + 1)

    def copy(self, target: Path) -> None:
        def special(folder: str, names: list[str]) -> set[str]:
            paths = {name: Path(folder, name) for name in names}
            kept = {name for name, path in paths.items() if path.is_symlink() or path.is_dir() or path.is_file()}
            return {name for name in names if name not in kept or name == ".git"}

        try:
            shutil.copytree(self._folder, target, symlinks=True, ignore=special)
        except (OSError, shutil.Error, RecursionError) as error:
            raise ConvertError(f"cannot be copied: {one_line(str(error), 200)}", where=str(self._folder)) from error
        _own(target)


def _own(folder: Path) -> None:
    """Let the copy's owner write to it."""
    folder.chmod(0o700)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(path.lstat().st_mode & 0o777 | (0o700 if name in folders else 0o600))


def _sorted(paths: Iterator[str]) -> list[str]:
    found = []
    for path in paths:
        if not _SKIPPED.intersection(path.split("/")):
            found.append(path)
            if len(found) > _MOST:
                raise ConvertError(f"more than {_MOST} files in the repository", hint="name the notebooks' folder")
    return sorted(found, key=_natural)


def _natural(path: str) -> list[tuple[int, int, str]]:
    """`2_plot` comes before `10_plot`."""

    # isdecimal: int() takes no superscript.
    parts = re.split(r"(\d+)", path)
    return [(0, int(part[:30]), "") if part.isdecimal() else (1, 0, part) for part in parts if part]

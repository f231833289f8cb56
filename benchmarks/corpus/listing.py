"""The list of repositories, and where they lie."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?\Z")
_NEEDS = "needs:"


@dataclass(frozen=True)
class Repository:
    """One repository of the list.

    Attributes:
        name: `owner/name`.
        commit: Full hex commit.
        notebooks: Paths below its root, which are to run.
        needs: What it needs that may not be reached, "" for nothing: it is then counted apart.
    """

    name: str
    commit: str
    notebooks: tuple[str, ...]
    needs: str = ""

    @property
    def slug(self) -> str:
        """A file's name for it."""
        return self.name.replace("/", "+")


def read_list(path: Path) -> list[Repository]:
    """Read lines of `owner/name COMMIT NOTEBOOK [needs:WHAT]`, words quoted as a shell has it, `#` before a comment.
    Lines of the same repository are its notebooks.

    Ends the program where a line cannot be meant.
    """
    found: dict[str, Repository] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            sys.exit(f"{path}:{number}: {error}")
        if not words:
            continue
        needs = words.pop().removeprefix(_NEEDS) if words[-1].startswith(_NEEDS) else ""
        if len(words) != 3 or not _NAME.match(words[0]) or not _COMMIT.match(words[1]):
            sys.exit(f"{path}:{number}: not `owner/name COMMIT NOTEBOOK [needs:WHAT]`")
        name, commit, notebook = words
        before = found.get(name, Repository(name, commit, (), needs))
        if (before.commit, before.needs) != (commit, needs):
            sys.exit(f"{path}:{number}: another commit or need of {name} than in a line before")
        found[name] = Repository(name, commit, (*before.notebooks, notebook), needs)
    return list(found.values())


def source_of(repository: Repository, place: str) -> str:
    """The URL of a repository.

    Args:
        place: Prefix of URLs (`https://github.com/`), or a folder with the repositories in it, bare or not: as
            `owner/name`, `owner/name.git`, `owner+name` or `owner+name.git`.

    Raises:
        FileNotFoundError: The folder does not have it.
    """
    if "://" in place or place.startswith(("gh:", "gl:")):
        return f"{place.rstrip('/')}/{repository.name}" if "://" in place else f"{place}{repository.name}"
    for path in _places(Path(place).absolute(), repository):
        if (path / "HEAD").exists() or (path / ".git").exists():
            return path.as_uri()
    raise FileNotFoundError(f"{place} has no {repository.name}")


def _places(folder: Path, repository: Repository) -> Iterator[Path]:
    for name in (repository.name, repository.slug):
        yield folder / f"{name}.git"
        yield folder / name

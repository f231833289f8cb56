"""Which of a repository's files says what its Python environment holds: the strongest one, alone."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from hpcbinder.plan import DetectError, Draft, Repo, show

from .locked import Document, Locked, open_lock
from .pipfile import pipfile_requires, read_pipfile, read_pipfile_lock
from .poetry import Constraint, parse_constraint
from .poetry_lock import read_poetry_lock
from .pylock import NAMED, read_pylock
from .requirements import Requirements, read_lines, read_requirements
from .target import Target
from .uv_lock import read_uv_lock
from .version import Range

ORDER = ("uv.lock", "pylock.toml", "poetry.lock", "Pipfile.lock", "Pipfile", "requirements.txt")
"""The first of them that is there counts. repo2docker has `Pipfile` before `requirements.txt`, too; exact versions go
before what has to be resolved."""

PIPENV = ("Pipfile", "Pipfile.lock")

PROVIDED = "provided"
"""Kind of recipe of an environment that another pack makes, to which pip only adds."""

TRANSLATED = "translated"
"""Kind of recipe of a file that another pack read, and said as requirements."""


@dataclass(frozen=True)
class Recipe:
    """The file that counts.

    Attributes:
        repo: The repository.
        kind: One of `ORDER`, `PROVIDED`, "" if there is none of them.
        path: The file.
        partner: The file that a lock is the lock of, if it is there.
        text: Of `PROVIDED` and `TRANSLATED` the requirements in the file.
    """

    repo: Repo
    kind: str = ""
    path: str = ""
    partner: str | None = None
    text: str = ""

    @property
    def is_lock(self) -> bool:
        """It says exact versions."""
        return self.kind in ORDER[:4]

    @property
    def has_project(self) -> bool:
        """The root's own project belongs to the environment without being named."""
        return self.kind not in (*PIPENV, PROVIDED, TRANSLATED)

    @functools.cached_property
    def document(self) -> Document:
        """The lock's content.

        Raises:
            DetectError: It cannot be read.
        """
        return open_lock(self.repo, self.path)

    def requirements(self) -> Requirements:
        """What is wanted, where there is no lock.

        Raises:
            DetectError: A line that is not allowed.
        """
        if self.kind == "Pipfile":
            return read_pipfile(self.repo, self.path)
        if self.kind in (PROVIDED, TRANSLATED):
            return read_lines(self.repo, self.path, self.text)
        return read_requirements(self.repo, self.path) if self.kind == "requirements.txt" else Requirements()

    def locked(self, target: Target) -> Locked:
        """What the lock says for a target.

        Raises:
            DetectError: It cannot be read, or holds what is not allowed.
        """
        if self.kind == "uv.lock":
            return read_uv_lock(self.repo, self.document, target, self.partner or "")
        if self.kind == "poetry.lock":
            return read_poetry_lock(self.repo, self.document, target, self.partner or "")
        if self.kind == "Pipfile.lock":
            return read_pipfile_lock(self.repo, self.document, target, self.partner)
        return read_pylock(self.repo, self.document, target)

    def pipenv(self) -> tuple[str, Mapping[str, object]] | None:
        """The Pipfile or the lock's `_meta`, whichever asks for a Python, with its path."""
        if self.kind == "Pipfile":
            return self.path, self.repo.read_toml(self.path)
        if self.kind != "Pipfile.lock":
            return None
        meta = self.document.table(self.document.values.get("_meta"))
        if not any(pipfile_requires(meta)) and self.partner:
            return self.partner, self.repo.read_toml(self.partner)
        return self.path, meta

    def made_for(self) -> Range | None:
        """The versions of Python that the lock was made for.

        Raises:
            DetectError: It says something that is no range of versions.
        """
        if self.kind == "poetry.lock":
            metadata = self.document.table(self.document.values.get("metadata"))
            text = self.document.word(metadata.get("python-versions"))
            where = self._at("python-versions")
            return Range(parse_constraint(text, where), where) if text else None
        if self.kind not in ("uv.lock", "pylock.toml"):
            return None
        text, where = self.document.word(self.document.values.get("requires-python")), self._at("requires-python")
        try:
            return Range(Constraint(text, (SpecifierSet(text),)), where) if text else None
        except InvalidSpecifier:
            raise DetectError(f"'{show(text)}' is not a range of versions", where=where) from None

    def _at(self, key: str) -> str:
        match = re.search(rf"^{re.escape(key)}\s*=", self.document.text, re.MULTILINE)
        number = self.document.text.count("\n", 0, match.start()) + 1 if match else 1
        return f"{show(self.path)}:{number}"


def choose_recipe(repo: Repo, draft: Draft) -> Recipe:
    """Find the file that counts, and say of the others that they do not."""
    if (provided := draft.provided) is not None:
        for name in (*ORDER, "runtime.txt", ".python-version"):
            # The provided environment may include one: `pip: [-r requirements.txt]`.
            # Of requirements.txt `join` says what becomes of it.
            if (path := repo.config(name)) and name != "requirements.txt" and name not in provided.requirements:
                draft.unused(path, f"{show(provided.path)}, which counts more, says what is installed")
        return Recipe(repo, PROVIDED, provided.path, text=provided.requirements)
    if (translated := draft.translated) is not None:
        for name in (*ORDER, *(("runtime.txt", ".python-version") if translated.python else ())):
            if (path := repo.config(name)) and name != "requirements.txt" and name not in translated.requirements:
                draft.unused(path, f"{show(translated.path)}, which counts more, says what is installed")
        return Recipe(repo, TRANSLATED, translated.path, text=translated.requirements)
    there: dict[str, tuple[str, str | None]] = {}
    pyproject = repo.root_config("pyproject.toml")
    for kind in ORDER:
        if kind == "pylock.toml":
            path = _pylock(repo, draft)
        else:
            path = repo.root_config(kind) if kind in ("uv.lock", "poetry.lock") else repo.config(kind)
        if path is None:
            continue
        if kind in ("uv.lock", "poetry.lock") and pyproject is None:
            draft.unused(path, "there is no pyproject.toml that it could be the lock of")
            continue
        partner = repo.config("Pipfile") if kind == "Pipfile.lock" else pyproject
        there[kind] = (path, partner)
    if lock := repo.root_config("pdm.lock"):
        draft.unused(lock, "locks of PDM are not read; `pdm export -f pylock -o pylock.toml` writes one that is")
    if not there:
        return Recipe(repo)
    kind, (path, partner) = next(iter(there.items()))
    for other, (other_path, _) in there.items():
        if other != kind:
            draft.unused(other_path, _why(kind, show(path), other))
    return Recipe(repo, kind, path, partner)


def _why(kind: str, path: str, other: str) -> str:
    if (kind, other) == ("Pipfile.lock", "Pipfile"):
        return f"{path} says which versions of it"
    return f"{path}, which counts more, says what is installed"


def _pylock(repo: Repo, draft: Draft) -> str | None:
    """pylock.toml, or the only pylock.NAME.toml there is."""
    plain = repo.config("pylock.toml")
    folder = repo.binder_dir
    named = []
    for item in repo.files(folder, ignored=True):
        name = item.path[len(folder) + 1 :] if folder else item.path
        if NAMED.match(name):
            named.append(item.path)
    if plain is None and len(named) == 1:
        return named[0]
    for path in named:
        draft.unused(path, f"{show(plain)} is used" if plain else "there are several; name one of them pylock.toml")
    return plain

"""Which of a repository's files says what its environment of conda packages holds: the strongest one, alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpcbinder.plan import DetectError, Draft, Repo, show

from .conda_lock import read_conda_lock
from .environment import Environment, read_environment
from .explicit import read_explicit
from .pixi import has_workspace, read_pixi
from .pixi_lock import read_pixi_lock

SUBDIRS = {"amd64": "linux-64", "arm64": "linux-aarch64"}
ENVIRONMENT = ("environment.yml", "environment.yaml")
CONDA_LOCK = ("conda-lock.yml", "conda-lock.yaml")
PIXI = ("pixi.toml", "pyproject.toml")

_OF_PIP = (
    *("requirements.txt", "uv.lock", "pylock.toml", "poetry.lock", "Pipfile", "Pipfile.lock"),
    *(*ENVIRONMENT, *CONDA_LOCK),
)
"""Beside one of these, a `[tool.pixi]` in pyproject.toml is for those who work on the project."""


@dataclass(frozen=True)
class Chosen:
    """The file that counts.

    Attributes:
        path: It.
        environment: What it says.
        partner: The manifest that it is the lock of, with what that says; None if there is none.
    """

    path: str
    environment: Environment
    partner: tuple[str, Environment] | None = None


def choose(repo: Repo, draft: Draft) -> Chosen | None:
    """Find the file that counts, and say of the others that they do not; None if there is none.

    Exact packages go before what has to be solved, as with the locks of other ecosystems. Translated they are worth
    less: what somebody asked for has counterparts elsewhere, what it brought along often has none.

    Raises:
        DetectError: It cannot be read, or all there is is for other platforms.
    """
    ours = SUBDIRS.get(draft.architecture, "")
    for subdir in SUBDIRS.values():
        if subdir != ours and (other := repo.config(f"conda-{subdir}.lock")):
            draft.unused(other, f"is for {subdir}, the image for {ours}")
    pixi = _pixi(repo, draft)
    locks = [f"conda-{ours}.lock", *CONDA_LOCK, *(["pixi.lock"] if pixi != "" else [])]
    asked = [*ENVIRONMENT, *([pixi] if pixi else [])]
    order = [*asked, *locks] if draft.translates_conda else [*locks, *asked]
    there = [(name, path) for name in order if (path := _path(repo, name))]
    foreign: list[str] = []
    for number, (name, path) in enumerate(there):
        environment = _reader(name)(repo, path, ours)
        if environment is None:
            foreign.append(path)
            continue
        for other in foreign:
            draft.unused(other, f"has nothing for {ours}")
        partner = _path(repo, pixi) if name == "pixi.lock" and pixi else None
        for _, other in there[number + 1 :]:
            if other != partner:
                draft.unused(other, f"{show(path)}, which counts more, says what the environment is")
        return Chosen(path, environment, (partner, read_pixi(repo, partner, ours)) if partner else None)
    if foreign:
        raise DetectError(
            f"has no packages for {ours}, which the image is for",
            where=show(foreign[0]),
            hint=f"lock it for {ours} too; --without conda builds without it",
        )
    return None


def _pixi(repo: Repo, draft: Draft) -> str | None:
    """The manifest of a pixi workspace: its name; None if there is none, "" if there is one that does not count."""
    if repo.config("pixi.toml"):
        return "pixi.toml"
    path = repo.root_config("pyproject.toml")
    if path is None or not has_workspace(repo, path):
        return None
    if other := next((name for name in _OF_PIP if repo.config(name)), None):
        draft.unused(path, f"its [tool.pixi] does not count beside {other}")
        if lock := repo.config("pixi.lock"):
            draft.unused(lock, f"it is the lock of [tool.pixi] in {show(path)}, which does not count beside {other}")
        return ""
    return "pyproject.toml"


def _path(repo: Repo, name: str) -> str | None:
    return repo.root_config(name) if name == "pyproject.toml" else repo.config(name)


def _reader(name: str) -> Callable[[Repo, str, str], Environment | None]:
    if name in ENVIRONMENT:
        return lambda repo, path, _: read_environment(repo, path)
    if name in CONDA_LOCK:
        return read_conda_lock
    if name == "pixi.lock":
        return read_pixi_lock
    if name in PIXI:
        return read_pixi
    return lambda repo, path, _: Environment(exact=read_explicit(repo, path))

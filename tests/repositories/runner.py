"""One repository of tests/repos: committed as its situation says, built, its notebooks and commands run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.corpus.listing import Repository
from benchmarks.corpus.running import Limits, run
from tests.rig.githttp import commit_folder

from .expected import Expected
from .situation import REPOS, Situation

PYTHONS = "HPCBINDER_TEST_PYTHONS"
"""Variable that names a folder of interpreters' own folders, called after their versions (`versions` of pyenv)."""
LIMITS = Limits(build=900, notebook=120, memory=8_000_000_000)
_OLDER = {"2.7": "bullseye", "3.9": "bullseye"}  # Pythons that packages of an older Debian bring (docs/bases.md)
_PLAIN = "2026-01-01T00:00:00Z"
_OPTIONS = {"chosen": "--buildpack", "without": "--without"}
_SETTINGS = {"suite": "HPCBINDER_BUILD_SUITE", "mpi": "HPCBINDER_MPI_ABI"}


@dataclass(frozen=True)
class Place:
    """Where it is done.

    Attributes:
        folder: For the commits, logs and what else comes up.
        store: Shared by all of them: bases and packages are squashed once.
        environment: What hpcbinder finds in its environment.
    """

    folder: Path
    store: Path
    environment: Mapping[str, str]


def needs_of(name: str, expected: Expected) -> str:
    """Why it is not built, "" if it can be."""
    if expected.needs or expected.refused:
        return expected.needs
    return ", ".join(f"Python {version}" for version, where in _pythons(Situation.of(name)) if not where)


def build_and_run(name: str, expected: Expected, place: Place) -> Any:
    """What came of it: `benchmarks.corpus.running.run` says what that holds."""
    situation = Situation.of(name)
    work, git, logs = place.folder / "work" / name, place.folder / "git" / f"{name}.git", place.folder / "logs"
    for path in (work, git):
        shutil.rmtree(path, ignore_errors=True)
    git.parent.mkdir(exist_ok=True)
    logs.mkdir(exist_ok=True)
    shutil.copytree(REPOS / name, work, symlinks=True)
    date = situation.commit_date.isoformat() if situation.commit_date else _PLAIN
    commit = commit_folder(work, git, message="as it is", date=date)
    return run(
        Repository(name, commit, ()),
        git.as_uri(),
        store=place.store,
        logs=logs,
        limits=LIMITS,
        more=["--format", "sif", *_options(situation), *expected.options],
        commands=expected.commands,
        environment={**place.environment, **_settings(situation), **expected.settings},
    )


def _options(situation: Situation) -> list[str]:
    """Of `hpcbinder build`, for what a plan is made with."""
    options = dict(situation.options)
    words = [word for key, flag in _OPTIONS.items() for value in options.pop(key, ()) for word in (flag, value)]
    if options.pop("translate_conda", False):
        words += ["--conda", "pypi"]
    if not situation.lock:
        words.append("--no-lock")
    if situation.as_of != "auto":
        words += ["--as-of", situation.as_of or "now"]
    if options.keys() - _SETTINGS.keys():
        raise ValueError(f"no option of hpcbinder build is known for {', '.join(options.keys() - _SETTINGS.keys())}")
    return words


def _settings(situation: Situation) -> dict[str, str]:
    """Variables of hpcbinder: with no Python but Debian's and those that it should find."""
    found = _pythons(situation)
    return {
        "HPCBINDER_BASES_PYTHON_IMAGES": "named",
        "HPCBINDER_BASES_PYTHONS": ":".join(where for _, where in found if os.sep in where),
        "HPCBINDER_BASES_OLDER": ",".join({where for _, where in found if where and os.sep not in where}),
        **{_SETTINGS[key]: str(value) for key, value in situation.options.items() if key in _SETTINGS},
    }


def _pythons(situation: Situation) -> list[tuple[str, str]]:
    """Version (X.Y) of each Python that is to be found -> its folder, or the older Debian that has it; "" if there is
    none here."""
    folder = os.environ.get(PYTHONS)
    found = []
    for full in situation.pythons:
        version = ".".join(full.split(".")[:2])
        here = sorted(Path(folder).glob(f"{version}.*")) if folder else []
        found.append((version, str(here[-1]) if here else _OLDER.get(version, "")))
    return found

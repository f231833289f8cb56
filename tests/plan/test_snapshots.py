"""What is said of each repository below tests/repos: its plan in words, or why it is refused, kept in snapshots/.

What a repository needs besides its files stands beside it, in NAME.toml (see `Situation`). To accept a change:
HPCBINDER_ACCEPT=1 pytest tests/plan/test_snapshots.py, and read the diff.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from checkouts import checkout_of
from recorded_index import RecordedConda, RecordedResolver

from hpcbinder.config import load
from hpcbinder.errors import HpcbinderError
from hpcbinder.model import Change, Python
from hpcbinder.plan import Foundation, bootstrapped, date_of, debian_python, explain, load_packs, make_plan

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOS = Path(__file__).parent.parent / "repos"
SNAPSHOTS = Path(__file__).parent / "snapshots"
NAMES = sorted(path.name for path in REPOS.iterdir() if path.is_dir())
COMMITTED = 1_700_000_000
NOW = 1_780_272_000


@dataclass(frozen=True)
class Situation:
    """tests/repos/NAME.toml: what a plan of the repository is made with.

    Attributes:
        commit_date: When its commit was made (a TOML date and time).
        checkout: More of its `Checkout`, by the names of its attributes.
        options: Arguments of `make_plan`, by name.
        packages: Packages that the index has besides the recorded ones: name -> version; "" for one without a wheel.
        refused: Names of packages whose metadata uv refuses.
        since: Name -> the oldest Python that the index still has files for.
        conda: Conda packages that the channels have besides those: name -> version.
        pythons: Full versions of interpreters that can be had besides those of the Debian releases.
        lock: Versions are found before the build.
        as_of: Of which time versions are, as --as-of has it, decided on 2026-06-01; "" for nobody having decided.
    """

    commit_date: Any = None
    checkout: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    since: Mapping[str, str] = field(default_factory=dict)
    conda: Mapping[str, str] = field(default_factory=dict)
    pythons: tuple[str, ...] = ()
    lock: bool = True
    as_of: str = ""

    @classmethod
    def of(cls, name: str) -> Situation:
        file = REPOS / f"{name}.toml"
        return cls(**tomllib.loads(file.read_text())) if file.exists() else cls()

    def arguments(self) -> dict[str, Any]:
        packages = {name: (version, ()) for name, version in self.packages.items()}
        resolver = RecordedResolver(packages=packages, since=self.since, refused=self.refused)
        pythons = [
            Python(".".join(full.split(".")[:2]), full, "bookworm", "folder", f"/opt/python/{full}/bin/python3", "/x")
            for full in self.pythons
        ]
        return {
            "packs": load_packs(()),
            "suite": "bookworm",
            "architecture": "amd64",
            "pythons": pythons,
            "stand": _stand,
            "resolver": resolver if self.lock else None,
            "conda": RecordedConda(dict(self.conda)) if self.lock else None,
            **self.options,
        }


def _stand(python: Python, architecture: str) -> Foundation:
    """What an image stands on, as if the interpreter had been put there before."""
    own = python.origin in ("debian", "conda")
    return replace(bootstrapped(python if own else debian_python(python.suite), architecture), python=python)


def said_of(name: str) -> str:
    """The plan in words without its id and the packs' versions, or the error."""
    situation = Situation.of(name)
    committed = int(situation.commit_date.timestamp()) if situation.commit_date else COMMITTED
    try:
        changed = Change(committed, "a.ipynb in 0123456789ab")
        settings = {"timestamp": committed, "changed": changed, **situation.checkout}
        checkout = checkout_of(REPOS / name, name=name, **settings)
        as_of = load({"build.as_of": situation.as_of}).build.as_of if situation.as_of else None
        dating = {"as_of": date_of(as_of, checkout, now=NOW, days=180)} if as_of else {}
        text = explain(make_plan(checkout, **{**dating, **situation.arguments()}))
    except HpcbinderError as error:
        return f"{type(error).__name__}: {error.message}\nwhere: {error.where}\nhint: {error.hint}\n"
    _, _, rest = text.partition("\n")
    return re.sub(
        r"^  packs .*$", lambda line: re.sub(r" \d[\w.]*(?=,|$)", "", line[0]), rest, count=1, flags=re.MULTILINE
    )


@pytest.mark.parametrize("name", NAMES)
def test_snapshot(name: str) -> None:
    said = said_of(name)
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("HPCBINDER_ACCEPT"):
        path.write_text(said)
    assert path.read_text() == said


def test_nothing_is_left_over() -> None:
    """A snapshot or a situation without its repository says nothing any more."""
    assert [path.name for path in SNAPSHOTS.iterdir() if path.stem not in NAMES] == []
    assert [path.name for path in REPOS.glob("*.toml") if path.stem not in NAMES] == []

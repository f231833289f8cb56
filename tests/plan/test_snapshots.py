"""What is said of each repository below tests/repos: its plan in words, or why it is refused, kept in snapshots/.

What a repository needs besides its files stands beside it, in NAME.toml (see `Situation`). To accept a change:
HPCBINDER_ACCEPT=1 pytest tests/plan/test_snapshots.py, and read the diff.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkouts import checkout_of
from recorded_index import RecordedConda, RecordedResolver
from repositories.situation import NAMES, REPOS, Situation

from hpcbinder.config import load
from hpcbinder.errors import HpcbinderError
from hpcbinder.model import Change, Python
from hpcbinder.plan import Foundation, bootstrapped, date_of, debian_python, explain, load_packs, make_plan

SNAPSHOTS = Path(__file__).parent / "snapshots"
COMMITTED = 1_700_000_000
NOW = 1_780_272_000


def arguments(situation: Situation) -> dict[str, Any]:
    """Of `make_plan`."""
    packages = {name: (version, ()) for name, version in situation.packages.items()}
    resolver = RecordedResolver(packages=packages, since=situation.since, refused=situation.refused)
    pythons = [
        Python(".".join(full.split(".")[:2]), full, "bookworm", "folder", f"/opt/python/{full}/bin/python3", "/x")
        for full in situation.pythons
    ]
    return {
        "packs": load_packs(()),
        "suite": "bookworm",
        "architecture": "amd64",
        "pythons": pythons,
        "stand": _stand,
        "resolver": resolver if situation.lock else None,
        "conda": RecordedConda(dict(situation.conda)) if situation.lock else None,
        **situation.options,
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
        text = explain(make_plan(checkout, **{**dating, **arguments(situation)}))
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

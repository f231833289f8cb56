"""Our detection against repo2docker's, for repo2docker's own test repositories: docs/conformance.md says where they
differ, and why. To accept a change: HPCBINDER_ACCEPT=1 pytest tests/conformance, and read the diff."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from checkouts import checkout_of
from conformance_table import KINDS, TABLE, Case, read_table
from recorded_index import RecordedConda
from repo2docker_cases import Cases

from hpcbinder.errors import DetectError
from hpcbinder.model import Lock, Python, WantedConda
from hpcbinder.plan import Foundation, bootstrapped, debian_python, load_packs, make_plan

PAGE = Path(__file__).parent.parent.parent / "docs" / "conformance.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
PYTHONS = ("2.7.18", "3.5.10", "3.6.15", "3.7.16", "3.8.18", "3.9.18", "3.10.13", "3.12.1")

# Runs in repo2docker's own way: the first buildpack that detects something, in the folder.
_THEIRS = """
import json, os, sys
from repo2docker.app import Repo2Docker
app, found = Repo2Docker(), {}
for name in sys.argv[2:]:
    os.chdir(os.path.join(sys.argv[1], name))
    packs = [pack(base_image="debian") for pack in app.buildpacks]
    pack = next((pack for pack in packs if pack.detect()), None) or app.default_buildpack(base_image="debian")
    found[name] = type(pack).__name__, getattr(pack, "python_version", ""), pack.binder_dir
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Choice:
    """What one of the two makes of a repository.

    Attributes:
        kind: What counts most in it: a value of KINDS, or `refused`.
        python: `X.Y`, "" where it does not matter.
        files: The config files that count.
    """

    kind: str
    python: str
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.python}".strip()


def stand(python: Python, architecture: str) -> Foundation:
    own = python.origin in ("debian", "conda")
    there = bootstrapped(python if own else debian_python(python.suite), architecture)
    return dataclasses.replace(there, python=python)


def solve(wanted: WantedConda) -> tuple[Lock, tuple[str, ...]]:
    """Every package there is."""
    names = {spec.split("::")[-1].split("=")[0].split(" ")[0].lower(): "1" for spec in wanted.specs}
    return RecordedConda(names)(wanted)


@functools.cache
def ours(folder: Path) -> Choice:
    pythons = [
        Python(".".join(full.split(".")[:2]), full, "bookworm", "folder", f"/opt/python/{full}/bin/python3", "/x")
        for full in PYTHONS
    ]
    try:
        plan = make_plan(
            checkout_of(folder, name="case"),
            packs=load_packs(()),
            suite="bookworm",
            architecture="amd64",
            pythons=pythons,
            conda=solve,
            stand=stand,
        )
    except DetectError as error:
        return Choice("refused", "", (error.where or "",))
    files = tuple(sorted({decision.file for decision in plan.decisions if decision.used}))
    names = [pack.name for pack in plan.packs]
    kind = next((kind for kind in dict.fromkeys(KINDS.values()) if kind in names), "python")
    return Choice(kind, "" if kind == "dockerfile" else plan.python.version, files)


@pytest.fixture(scope="module")
def theirs(cases: Cases) -> dict[str, Choice]:
    command = [sys.executable, "-c", _THEIRS, str(cases.folder), *cases.names()]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return {name: Choice(KINDS[pack], python) for name, (pack, python, _) in found.items()}


def test_every_case_is_in_the_table(cases: Cases) -> None:
    assert cases.names() == sorted(TABLE)


def test_our_detection_agrees_or_the_table_says_why_not(cases: Cases, theirs: dict[str, Choice]) -> None:
    unsaid, idle = {}, []
    for name, case in TABLE.items():
        mine = ours(cases.folder / name)
        same = (mine.kind, mine.python) == (theirs[name].kind, theirs[name].python)
        if not same and not case.differs:
            unsaid[name] = f"{theirs[name]} there, {mine} here"
        if same and case.differs:
            idle.append(name)
    assert (unsaid, idle) == ({}, [])


def test_the_page_has_this_table(cases: Cases, theirs: dict[str, Choice]) -> None:
    rows = [row(name, case, theirs[name], ours(cases.folder / name)) for name, case in TABLE.items()]
    head = (
        "| case | repo2docker | hpcbinder | config files that count | why they differ | its `verify` |",
        "|---" * 6 + "|",
    )
    text = "\n".join([*head, *rows])
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page = f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
    if os.environ.get("HPCBINDER_ACCEPT"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page


def row(name: str, case: Case, there: Choice, here: Choice) -> str:
    files = ", ".join(f"`{file}`" for file in here.files) or "none"
    return f"| {name} | {there} | {here} | {files} | {case.differs or case.note} | {case.said} |"


def test_what_is_not_verified_says_why() -> None:
    assert [name for name, case in read_table().items() if not case.verified and not case.because] == []

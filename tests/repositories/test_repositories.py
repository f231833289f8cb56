"""Every repository of tests/repos that can be built here, built and run: it ends as expected.toml says.

A run of the tests does those that are `usual`; `make nightly` (tests/profiles.py) does all.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from images import Line
from rig import Apptainer

ROOT = Path(__file__).parent.parent.parent
sys.path.append(str(ROOT))

from repositories import page  # noqa: E402 (they take parts of benchmarks/, which is no part of what is installed)
from repositories.expected import Expected, differences, read_expected  # noqa: E402
from repositories.runner import Place, build_and_run, needs_of  # noqa: E402
from repositories.situation import NAMES  # noqa: E402

SNAPSHOTS = ROOT / "tests" / "plan" / "snapshots"
PAGE = ROOT / "docs" / "repositories.md"
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
EXPECTED = read_expected()
CHOSEN = [name for name, each in EXPECTED.items() if (each.usual or NIGHTLY) and not needs_of(name, each)]


@pytest.fixture(scope="module")
def place(line: Line, contract_image: dict[str, Any], apptainer: Apptainer) -> Place:
    """With the store and the engine that other tests have filled; nightly without an engine what can be done so."""
    folder = line.folder / "repositories"
    folder.mkdir(exist_ok=True)
    more = {
        "PATH": f"{apptainer.bin}:{line.environment['PATH']}",
        **({"HPCBINDER_BUILD_ENGINE": "auto"} if NIGHTLY else {}),
    }
    return Place(folder, line.folder / "store", {**line.environment, **more})


@pytest.mark.parametrize("name", CHOSEN)
def test_it_ends_as_expected(name: str, place: Place) -> None:
    record = build_and_run(name, EXPECTED[name], place)
    assert differences(EXPECTED[name], record) == []


def test_every_repository_is_expected_to_end_somehow() -> None:
    assert list(EXPECTED) == NAMES


@pytest.mark.parametrize("name", [name for name, each in EXPECTED.items() if each.refused])
def test_the_same_refusal_as_in_its_plan(name: str) -> None:
    """Where the plan of the snapshots ends with an error, too: some are refused for what the index really has."""
    said = (SNAPSHOTS / f"{name}.txt").read_text()
    assert "Error: " not in said.partition("\n")[0] or EXPECTED[name].refused in said


@pytest.mark.parametrize("name", NAMES)
def test_what_the_plan_refuses_is_not_expected_to_be_built(name: str) -> None:
    refused = "Error: " in (SNAPSHOTS / f"{name}.txt").read_text().partition("\n")[0]
    assert not refused or EXPECTED[name].refused or EXPECTED[name].needs


def test_the_page_has_them_all() -> None:
    """`make repos` writes it."""
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| [")]
    assert [(row[0].partition("[")[2].partition("]")[0], row[1]) for row in rows] == [
        (name, each.shows) for name, each in EXPECTED.items()
    ]
    assert not any("otherwise than expected" in row[2] for row in rows)


def test_the_page_has_no_folder_of_whoever_wrote_it() -> None:
    error = "file:///home/ada/git/x.git: 'a|b' is (not) there (look (there) for it)"
    shown = page.markdown(
        {"x": Expected("x", refused="there")}, {"x": {"exit": 4, "error": error, "build_seconds": 1.0}}
    )
    assert "| refused: `file://…/x.git: 'a¦b' is (not) there` |" in shown


def built(**changes: Any) -> dict[str, Any]:
    """What the runner returns for a repository that was built and has one notebook, which runs."""
    verdict = {"notebook": "a.ipynb", "status": "runs", "line": "runs (1 cell)", "cause": ""}
    return {"exit": 0, "verdicts": [verdict], "missing": [], "commands": [], **changes}


def verdict(status: str, line: str, cause: str = "") -> list[dict[str, str]]:
    return [{"notebook": "a.ipynb", "status": status, "line": line, "cause": cause}]


@pytest.mark.parametrize(
    ("expected", "record"),
    [
        (Expected("x"), built()),
        (Expected("x", refused="no such"), {"exit": 4, "error": "apt.txt:1: no such package"}),
        (Expected("x", breaks="no such"), {"exit": 5, "error": "step a/b failed: no such package"}),
        (Expected("x", missing=("m",)), built(missing=[{"module": "m"}])),
        (
            Expected("x", notebooks={"a.ipynb": "fails: six"}),
            built(verdicts=verdict("fails", "fails at cell 1", "six is not in the image")),
        ),
        (Expected("x", run=("a -> b",)), built(commands=[{"line": "a", "exit": 0, "said": "a b c"}])),
    ],
)
def test_as_expected(expected: Expected, record: dict[str, Any]) -> None:
    assert differences(expected, record) == []
    assert "**1 of 1 repositories that were tried end as they should" in page.markdown({"x": expected}, {"x": record})


@pytest.mark.parametrize(
    ("expected", "record", "said"),
    [
        (Expected("x"), {"exit": 5, "error": "no such package"}, "it could not be built (5): no such package"),
        (Expected("x", refused="no such"), built(), "it was built, and should have said: no such"),
        (Expected("x", refused="no such"), {"exit": 5, "error": "no such"}, "exit status 5"),
        (Expected("x", breaks="no such"), {"exit": 4, "error": "no such"}, "exit status 4"),
        (Expected("x", breaks="no such"), {"exit": 1, "error": "no such"}, "exit status 1"),
        (
            Expected("x", refused="no such"),
            {"exit": 4, "error": "another"},
            "should have said: no such; it said: another",
        ),
        (Expected("x"), {"exit": 0, "error": "no runtime"}, "it could not be verified: no runtime"),
        (Expected("x"), built(verdicts=verdict("fails", "fails at cell 1")), "a.ipynb: fails at cell 1"),
        (Expected("x", notebooks={"a.ipynb": "data"}), built(), "a.ipynb: runs"),
        (
            Expected("x", notebooks={"a.ipynb": "fails: six"}),
            built(verdicts=verdict("fails", "fails at cell 1", "toolz is not in the image")),
            "toolz",
        ),
        (Expected("x", notebooks={"b.ipynb": "fails"}), built(), "b.ipynb was not run"),
        (Expected("x"), built(missing=[{"module": "m"}]), "imports that are missing: m"),
        (Expected("x", missing=("m",)), built(), "imports that are missing: none"),
        (Expected("x", run=("a",)), built(commands=[{"line": "a", "exit": 3, "said": "oh"}]), "a: exit 3: oh"),
        (Expected("x", run=("a -> b",)), built(commands=[{"line": "a", "exit": 0, "said": "c"}]), "a: exit 0: c"),
    ],
)
def test_otherwise_than_expected(expected: Expected, record: dict[str, Any], said: str) -> None:
    (found,) = differences(expected, record)
    assert said in found
    assert "**otherwise than expected**" in page.markdown({"x": expected}, {"x": record})

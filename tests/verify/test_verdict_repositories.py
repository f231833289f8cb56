"""The verdict on each tests/repos/notebook-*: all in one image, since it depends on the notebooks alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_verify_runs import Person, person  # noqa: F401 (a fixture)

REPOS = Path(__file__).parent.parent / "repos"

EXPECTED = {
    "notebook-data/by hand.ipynb": ("fails", "readligo is not in the image"),
    "notebook-data/download.ipynb": ("network", ""),
    "notebook-errors/another than was saved.ipynb": ("fails", ""),
    "notebook-errors/on purpose.ipynb": ("runs", ""),
    "notebook-folders/chapters/one/first.ipynb": ("runs", ""),
    "notebook-installs/magic.ipynb": ("fails", "add a_package_that_is_not_there to the requirements"),
    "notebook-kernels/cluster.ipynb": ("runs", ""),
    "notebook-kernels/julia.ipynb": ("kernel", ""),
    "notebook-outdated/removed.ipynb": ("fails", "Python 3.10 removed collections.Mapping"),
    "notebook-outdated/text.ipynb": ("fails", "this version of string has no letters: try --as-of commit"),
    "notebook-old-formats/cut off.ipynb": ("unreadable", ""),
    "notebook-old-formats/pointer.ipynb": ("unreadable", ""),
    "notebook-old-formats/three.ipynb": ("runs", ""),
}
"""Notebook -> its status, and what its cause says."""


@pytest.fixture(scope="module")
def verdicts(person: Person, contract_image: dict[str, Any]) -> dict[str, Any]:  # noqa: F811
    folder = person.user.home / "repositories"
    for repository in REPOS.glob("notebook-*"):
        if repository.is_dir():
            shutil.copytree(repository, folder / repository.name)
    person.user.own(folder)
    done = person.run("verify", contract_image["id"], "--checkout", str(folder), "--json")
    assert done.stdout, done.stderr
    return {verdict["notebook"]: verdict for verdict in json.loads(done.stdout)["notebooks"]}


def test_every_notebook_has_the_verdict_it_should(verdicts: dict[str, Any]) -> None:
    assert {name: verdict["status"] for name, verdict in verdicts.items()} == {
        name: status for name, (status, _) in EXPECTED.items()
    }
    for name, (_, cause) in EXPECTED.items():
        assert cause in verdicts[name]["cause"]


def test_a_kernel_that_is_not_there_is_named(verdicts: dict[str, Any]) -> None:
    (note,) = verdicts["notebook-kernels/cluster.ipynb"]["notes"]
    assert note == "names kernel isc-ihpc, which is not there: run with python3"


def test_an_error_is_on_purpose_only_if_it_is_the_one_that_was_saved(verdicts: dict[str, Any]) -> None:
    assert verdicts["notebook-errors/on purpose.ipynb"]["line"].startswith("runs (4 cells, 2 of them fail on purpose")
    assert verdicts["notebook-errors/another than was saved.ipynb"]["failure"]["name"] == "NameError"

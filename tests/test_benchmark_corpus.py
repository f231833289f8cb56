"""`python -m benchmarks.corpus`, on two small repositories: one whose notebook runs, one that cannot be built."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from images import Line
from rig import Apptainer
from rig.githttp import commit_folder

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))

from benchmarks.corpus import report  # noqa: E402 (benchmarks/ is no part of what is installed)
from benchmarks.corpus.listing import Repository, read_list, source_of  # noqa: E402

NOTEBOOK = {
    "cells": [{"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": "print(6 * 7)"}],
    "metadata": {"kernelspec": {"display_name": "x", "name": "some-env"}},
    "nbformat": 4,
    "nbformat_minor": 4,
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def made(folder: Path, name: str, files: dict[str, str]) -> str:
    """A repository `folder/name.git`; its commit."""
    work = folder / "work" / name
    work.mkdir(parents=True)
    for path, text in files.items():
        (work / path).write_text(text)
    git = folder / f"{name}.git"
    git.parent.mkdir(exist_ok=True)
    commit_folder(work, git, message="as it is")
    head = subprocess.run(["git", "-C", git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return head.stdout.strip()


def test_two_repositories(
    line: Line, contract_image: dict[str, Any], apptainer: Apptainer, open_tmp_path: Path
) -> None:
    folder, out, site = open_tmp_path / "mirror", open_tmp_path / "out", open_tmp_path / "site"
    good = made(folder, "owner/good", {"a notebook.ipynb": json.dumps(NOTEBOOK)})
    bad = made(folder, "owner/bad", {"requirements.txt": "no requirement\n", "x.ipynb": json.dumps(NOTEBOOK)})
    listed = open_tmp_path / "list.txt"
    listed.write_text(f"# two\nowner/good {good} 'a notebook.ipynb'\nowner/bad {bad} x.ipynb  # refused\n")
    # The base and packages that tests squashed before.
    site.mkdir()
    for name in ("bases", "wheels"):
        (site / name).symlink_to(line.folder / "store" / name)
    (site / "version").write_text("1")
    environment = {
        **line.environment,
        "PATH": f"{apptainer.bin}:{os.environ['PATH']}",
        "HPCBINDER_STORE_SITE": str(site),
        "HPCBINDER_BUILD_ENGINE": "none",
        "HPCBINDER_BUILD_COMPRESSION": "gzip",
    }

    def run() -> str:
        command = [sys.executable, "-m", "benchmarks.corpus", listed, "--from", folder, "--out", out, "--", "--no-lfs"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=580)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    said = run()
    assert "owner/good: a notebook.ipynb: runs  [3.11" in said
    assert "owner/bad: x.ipynb: not built" in said
    assert "requirements.txt:1: is not a requirement" in said
    assert said.endswith("In 1 of 2 repositories (50 %) that need nothing unreachable, the notebook runs.\n")
    results = json.loads((out / "results.json").read_text())
    (verdict,) = results["records"][0]["verdicts"]
    assert verdict["notes"] == ["names kernel some-env, which is not there: run with python3"]
    assert (out / "logs" / "owner+good.build.log").read_text()

    # As after a kill in the second one: the first is not even looked for.
    (out / "records" / "owner+bad.json").unlink()
    (folder / "owner" / "good.git").rename(folder / "gone")
    again = run()
    assert again.startswith("2 of 2: owner/bad\n")
    assert again.endswith(said.partition("2 of 2: owner/bad\n")[2])


@pytest.mark.parametrize(
    "text",
    [
        f"owner/name {COMMIT}\n",
        "owner/name main x.ipynb\n",
        f"../name {COMMIT} x.ipynb\n",
        f"owner/name {COMMIT} 'x.ipynb\n",
        f"owner/name {COMMIT} x.ipynb\nowner/name {COMMIT[::-1]} y.ipynb\n",
    ],
)
def test_a_line_that_cannot_be_meant(tmp_path: Path, text: str) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(SystemExit, match="list:[12]: "):
        read_list(tmp_path / "list")


def test_the_list_of_the_documentation_can_be_read() -> None:
    listed = read_list(ROOT / "benchmarks" / "corpus" / "repositories.txt")
    assert len([each for each in listed if not each.needs]) >= 15


def test_where_repositories_lie(tmp_path: Path) -> None:
    repository = Repository("owner/name", COMMIT, ("x.ipynb",))
    assert source_of(repository, "https://github.com/") == "https://github.com/owner/name"
    assert source_of(repository, "gh:") == "gh:owner/name"
    with pytest.raises(FileNotFoundError):
        source_of(repository, str(tmp_path))
    (tmp_path / "owner+name" / ".git").mkdir(parents=True)
    assert source_of(repository, str(tmp_path)) == (tmp_path / "owner+name").as_uri()


def test_what_needs_more_is_counted_apart() -> None:
    def record(name: str, status: str, needs: str = "") -> dict[str, Any]:
        verdict = {"notebook": "x.ipynb", "status": status, "line": f"{status} | at once", "cause": "", "seconds": 1.0}
        return {
            **{"name": name, "commit": COMMIT, "notebooks": ["x.ipynb"], "needs": needs, "build_seconds": 1.0},
            **{"verdicts": [verdict], "built": {"python": "3.11.2", "builder": "none"}},
        }

    records = [record("a/a", "runs"), record("a/b", "fails"), record("a/c", "network", "network")]
    said = "In 1 of 2 repositories (50 %) that need nothing unreachable, the notebook runs"
    assert report.figure(records) == f"{said}; so it does in 0 of 1 that need more."
    page = report.markdown(records)
    assert "### Those that need more" in page
    assert "| **needs the network** |" in page
    assert "- a/b, `x.ipynb`: `fails | at once`" in page

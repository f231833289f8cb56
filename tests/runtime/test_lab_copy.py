"""The copy that JupyterLab opens on, as the image's shell makes it: here the shell is this machine's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpcbinder.runtime import lab_argv


def opened(repository: Path, work: Path) -> Path:
    """What lies in the working directory that the server is started in."""
    programs = work.with_name("programs")
    programs.mkdir(exist_ok=True)
    (programs / "jupyter-lab").write_text("#!/bin/sh\npwd\n")
    (programs / "jupyter-lab").chmod(0o755)
    done = subprocess.run(
        lab_argv("small-1", repository=str(repository), own=True),
        cwd=work,
        env={"PATH": f"{programs}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Path(done.stdout.strip())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    repository = tmp_path / "the repository"
    for folder in (".git", "sub/.git/objects", ".hidden/..odd/.GIT", "read only"):
        (repository / folder).mkdir(parents=True)
    for file in ("fit.ipynb", ".git/config", "sub/.gitignore", "sub/a.py", ".hidden/..odd/b", "read only/.git"):
        (repository / file).write_text(file)
    (repository / "link").symlink_to("sub")
    (repository / "nowhere").symlink_to("/nowhere/at/all")
    (repository / "read only").chmod(0o555)
    return repository


def test_everything_is_copied_but_what_git_would_obey(repository: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    copy = opened(repository, work)
    assert copy == work / "small-1"
    found = sorted(str(path.relative_to(copy)) for path in copy.rglob("*"))
    folders = [".hidden", ".hidden/..odd", "link", "nowhere", "read only", "sub"]
    assert found == sorted([*folders, ".hidden/..odd/b", "fit.ipynb", "sub/.gitignore", "sub/a.py"])
    assert (copy / "link").readlink() == Path("sub")
    assert [path.name for path in work.iterdir()] == ["small-1"]


def test_a_copy_that_is_there_is_the_person_s(repository: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "small-1/.git").mkdir(parents=True)
    assert opened(repository, work) == work / "small-1"
    assert [path.name for path in (work / "small-1").iterdir()] == [".git"]

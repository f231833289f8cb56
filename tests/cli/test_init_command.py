"""`hpcbinder init`: where it writes, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkouts import fill
from notebook_files import notebook

from hpcbinder.cli.main import main
from rig.githttp import commit_folder


def ran(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["init", "--no-lock", *argv])
    return int(caught.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    found = tmp_path / "work"
    fill(found, {"nb/a.ipynb": notebook("import yaml, numpy"), ".binder/postBuild": "#!/bin/sh\ntrue\n"})
    return found


def test_a_folder_gets_them_where_they_count(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(str(folder), "--json") == 0
    (told,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    written = [Path(file["path"]) for file in told["files"] if file["written"]]
    assert written == [folder / ".binder" / "requirements.txt", folder / ".binder" / "runtime.txt"]
    assert [line.split("#")[0].strip() for line in written[0].read_text().splitlines() if line[:1].isalpha()] == [
        "numpy",
        "PyYAML",
    ]
    # What they say is what counts from then on: nothing is left to write.
    assert ran(str(folder)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"left  {written[0]}: .binder/requirements.txt says what is installed"
    assert {line.split()[0] for line in said} == {"left"}


def test_a_url_gets_them_in_the_current_folder(folder: Path, tmp_path: Path) -> None:
    commit_folder(folder, tmp_path / "a.git", message="as it is")
    assert ran(f"file://{tmp_path}/a.git") == 0
    assert (tmp_path / "requirements.txt").exists() and not (folder / ".binder" / "requirements.txt").exists()
    assert ran(f"file://{tmp_path}/a.git") == 2
    assert ran(f"file://{tmp_path}/a.git", "--force", "-o", str(tmp_path / "new" / "one")) == 0
    assert (tmp_path / "new" / "one" / "runtime.txt").read_text().startswith("python-3.")


def test_a_part_of_a_folder(folder: Path) -> None:
    assert ran(str(folder), "--subdir", "nb") == 0
    assert (folder / "nb" / "requirements.txt").exists()

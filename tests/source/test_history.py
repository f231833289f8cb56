"""When what runs was changed last: real repositories, whose newest commits are corrections of a README."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import pytest
from gitrepo import Listener, Repository

from hpcbinder.model import Change
from hpcbinder.source import fetch, history
from hpcbinder.source.command import Result
from hpcbinder.source.repository import Repository as RemoteRepository
from rig.githttp import serve

LONG_AGO = int(datetime(2018, 3, 5, 10, tzinfo=timezone.utc).timestamp())
LATER = int(datetime(2024, 6, 1, tzinfo=timezone.utc).timestamp())


@pytest.fixture
def old(repository: Repository) -> Repository:
    """Written in 2018; in 2024 its README was corrected, and its documentation's settings."""
    repository.date = LONG_AGO
    repository.commit(nb___fit__ipynb="{}", requirements__txt="h5py\n", README__md="1")
    repository.date = LATER
    for number in range(4):
        repository.commit(README__md=f"corrected {number}", docs___conf__py=f"x = {number}")
    return repository


def changed(spec: str, workdir: Path, *, subdir: str | None = None) -> Change:
    workdir.mkdir(exist_ok=True)
    checkout = fetch(spec, ref=None, subdir=subdir, workdir=workdir, reporter=Listener(), history=True)
    assert checkout.changed is not None
    return checkout.changed


def url(repository: Repository) -> str:
    return repository.url.replace(" ", "%20")


def test_a_readmes_correction_is_no_change(old: Repository, workdir: Path) -> None:
    first = old.git("rev-list", "--max-parents=0", "HEAD")
    expected = Change(LONG_AGO, f"nb/fit.ipynb in {first[:12]}")
    assert changed(url(old), workdir / "fetched") == expected
    assert changed(str(old.path), workdir / "folder") == expected


def test_only_the_wanted_folder_counts(old: Repository, workdir: Path) -> None:
    for source, name in ((url(old), "fetched"), (str(old.path), "folder")):
        assert changed(source, workdir / name, subdir="nb").time == LONG_AGO
        outside = changed(source, workdir / f"{name}-docs", subdir="docs")
        assert outside == Change(LATER, outside.what)  # there it is a script like others


@pytest.fixture
def served(old: Repository, tmp_path: Path) -> Repository:
    """A bare copy for a server: before its newest commits, and only then, there was a large file."""
    old.date = LONG_AGO
    old.commit(large__txt=os.urandom(100_000).hex())
    old.date = LATER
    (old.path / "large.txt").unlink()
    for number in range(3):
        old.commit(README__md=f"without it {number}")
    served = Repository(tmp_path / "served" / "it.git", "--bare")
    old.git("push", "--quiet", str(served.path), "main")
    return served


def test_the_history_comes_without_contents(served: Repository, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served.git("config", "uploadpack.allowFilter", "true")
    sizes: list[int] = []
    deepen = RemoteRepository.deepen

    def looking(repository: RemoteRepository, depth: int, *, timeout: float) -> Result:
        result = deepen(repository, depth, timeout=timeout)
        sizes.extend(file.stat().st_size for file in repository.git.git_dir.rglob("*.pack"))
        return result

    monkeypatch.setattr(RemoteRepository, "deepen", looking)
    with serve(served.path.parent) as address:
        found = changed(f"{address}/it.git", workdir)
    assert (found.time, found.doubt) == (LONG_AGO, "")
    assert sizes and max(sizes) < 50_000


def test_a_server_without_filters_is_not_asked_for_more(served: Repository, workdir: Path) -> None:
    served.git("config", "uploadpack.allowFilter", "false")
    with serve(served.path.parent) as address:
        found = changed(f"{address}/it.git", workdir)
    assert found.time == LATER
    assert found.doubt == "the server does not give a history without the contents of all files"


def test_more_history_than_is_looked_at(old: Repository, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_DEPTHS", (2, 3))
    found = changed(url(old), workdir / "fetched")
    assert (found.time, found.doubt) == (LATER, "no newer one changed any; what is older was not looked at")


def test_a_history_that_cannot_be_had(old: Repository, workdir: Path) -> None:
    class Leaving(Listener):
        def phase(self, phase: str, message: str, progress: float | None = None) -> None:
            if message == "writing files":
                old.path.rename(old.path.with_name("gone"))

    workdir.mkdir(exist_ok=True)
    found = fetch(url(old), ref=None, subdir=None, workdir=workdir, reporter=Leaving(), history=True).changed
    assert found is not None
    assert found.time == LATER and found.doubt.startswith("its history cannot be had: ")


def test_a_clone_that_has_only_the_newest(old: Repository, tmp_path: Path, workdir: Path) -> None:
    old.git("clone", "--quiet", "--depth=2", url(old), str(tmp_path / "clone"))
    found = changed(str(tmp_path / "clone"), workdir)
    assert (found.time, bool(found.doubt)) == (LATER, True)


def test_what_is_not_committed_counts(old: Repository, workdir: Path) -> None:
    when = LATER + 1000
    old.write(".gitignore", "ignored.py\n")
    for name, counts in (("ignored.py", False), ("README.md", False), ("nb/new.ipynb", True)):
        old.write(name, "other")
        os.utime(old.path / name, (when, when))
        found = changed(str(old.path), workdir / name.replace("/", "-"))
        assert found.time == (when if counts else LONG_AGO), name
    assert found == Change(when, "nb/new.ipynb, not committed")
    (old.path / "nb/new.ipynb").unlink()
    old.write("nb/fit.ipynb", "{ }")
    os.utime(old.path / "nb/fit.ipynb", (when, when))
    assert changed(str(old.path), workdir / "edited") == Change(when, "nb/fit.ipynb, not committed")


def test_looking_at_a_folder_runs_nothing_it_chooses(
    old: Repository, home: Path, tmp_path: Path, workdir: Path
) -> None:
    """Neither what its configuration names, nor a filter of the person's that its attributes ask for."""
    canary = tmp_path / "canary"
    (home / ".gitconfig").write_text(f'[filter "evil"]\nclean = touch "{canary}"\n')
    old.git("config", "core.fsmonitor", f'touch "{canary}"; false')
    old.write(".gitattributes", "* filter=evil\n")
    old.write("nb/fit.ipynb", "{ }")
    assert changed(str(old.path), workdir).what == "nb/fit.ipynb, not committed"
    assert not canary.exists()


def test_a_folder_without_git_has_its_files_times(tmp_path: Path, workdir: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    for name, when in (("a.py", LONG_AGO), ("README.md", LATER)):
        (folder / name).write_text("")
        os.utime(folder / name, (when, when))
    assert changed(str(folder), workdir) == Change(LONG_AGO, "a.py, by its time on the disk")
    (folder / "a.py").unlink()
    assert changed(str(folder), workdir) == Change(0, "no notebooks, code or configuration")


def test_nothing_is_asked_that_nobody_needs(old: Repository, workdir: Path) -> None:
    listener = Listener()
    checkout = fetch(url(old), ref=None, subdir=None, workdir=workdir, reporter=listener)
    assert checkout.changed is None

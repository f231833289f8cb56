"""The git repository that a copy is: written without git, and looked at by the real one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcbinder.config import SourceConfig
from hpcbinder.model import Checkout
from hpcbinder.plan import commit_text
from hpcbinder.progress import Silent
from hpcbinder.runtime.launch.space.clone import origin_of, read_history, write_git
from hpcbinder.source import fetch

NOBODY = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "GIT_TERMINAL_PROMPT": "0"}


def git(folder: Path, *arguments: str, check: bool = True) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always"]
    command = ["git", *identity, *arguments]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **NOBODY}, capture_output=True, text=True)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Somebody's clone of a bare repository with two commits."""
    options = ("init", "--quiet", "--initial-branch=trunk")
    folder = tmp_path / "work"
    folder.mkdir()
    git(tmp_path, *options, "--bare", "bare.git")
    git(folder, *options)
    git(folder, "remote", "add", "origin", f"file://{tmp_path}/bare.git")
    (folder / "fit.py").write_text("print(1)\n")
    push(folder, "first")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "data").mkdir()
    (folder / "data/ümlaut and space.txt").write_text("x" * 100_000)
    (folder / "data.txt").write_text("beside the folder\n")  # git sorts data.txt before data/
    (folder / "empty").touch()
    (folder / "link").symlink_to("data/nowhere")
    (folder / "away").symlink_to("/etc")
    push(folder, "second")
    return folder


def push(work: Path, message: str) -> None:
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "--message", message)
    git(work, "push", "--quiet", "origin", "HEAD:trunk")


def clone(work: Path, *, ref: str | None = None, subdir: str | None = None) -> tuple[Path, bool, Checkout]:
    """What a person's copy is like: the folder, whether all of the commit is there, and what was fetched."""
    checkout, history = fetched(work, ref=ref, subdir=subdir)
    copy = work.parent / "copy"
    shutil.copytree(checkout.root, copy / (subdir or ""), symlinks=True)
    whole = write_git(str(copy), read_history(str(history)), checkout.source)
    return copy, whole, checkout


def fetched(work: Path, *, ref: str | None = None, subdir: str | None = None) -> tuple[Checkout, Path]:
    room = work.parent / "fetched"
    room.mkdir()
    url = f"file://{work.parent}/bare.git"
    source = SourceConfig(submodules="leave", lfs="leave")
    checkout = fetch(url, ref=ref, subdir=subdir, workdir=room, reporter=Silent(), source=source)
    assert checkout.history is not None
    history = work.parent / "commit.json"
    history.write_text(commit_text(checkout.history))
    return checkout, history


def test_it_is_clean_and_shows_only_changes_without_asking_anybody(work: Path) -> None:
    copy, whole, checkout = clone(work)
    (work.parent / "bare.git").rename(work.parent / "away.git")
    assert whole
    assert git(copy, "status", "--porcelain", "--branch") == "## trunk...origin/trunk\n"
    assert git(copy, "log", "--format=%H %s") == f"{checkout.commit} second\n"
    assert git(copy, "fsck", "--full") == ""
    (copy / "fit.py").write_text("print(2)\n")
    (copy / "new.txt").touch()
    (copy / "empty").unlink()
    assert git(copy, "status", "--porcelain") == " D empty\n M fit.py\n?? new.txt\n"
    assert "+print(2)" in git(copy, "diff")
    git(copy, "checkout", "--quiet", "--", ".")
    assert git(copy, "status", "--porcelain") == "?? new.txt\n"
    assert (copy / "fit.py").read_text() == "print(1)\n"


def test_a_change_is_pushed_and_others_are_pulled(work: Path) -> None:
    copy, _, _ = clone(work)
    (copy / "fit.py").write_text("print(2)\n")
    git(copy, "commit", "--quiet", "--all", "--message", "mine")
    git(copy, "push", "--quiet")
    git(work, "pull", "--quiet", "origin", "trunk")
    assert (work / "fit.py").read_text() == "print(2)\n"
    assert git(work, "log", "--format=%s").split() == ["mine", "second", "first"]

    (work / "run.sh").write_text("#!/bin/bash\n")
    push(work, "theirs")
    git(copy, "pull", "--quiet")
    assert (copy / "run.sh").read_text() == "#!/bin/bash\n"
    git(copy, "fetch", "--quiet", "--unshallow")
    assert git(copy, "log", "--format=%s").split() == ["theirs", "mine", "second", "first"]
    git(copy, "gc", "--quiet")
    assert git(copy, "fsck") == ""


def test_ids_of_sha256(tmp_path: Path) -> None:
    options = ("init", "--quiet", "--initial-branch=trunk", "--object-format=sha256")
    git(tmp_path, *options, "--bare", "bare.git")
    git(tmp_path, *options, "work")
    git(tmp_path / "work", "remote", "add", "origin", f"file://{tmp_path}/bare.git")
    (tmp_path / "work/a").write_text("a")
    push(tmp_path / "work", "first")
    copy, whole, _ = clone(tmp_path / "work")
    assert whole
    assert git(copy, "status", "--porcelain") == ""
    assert git(copy, "fsck") == ""


def test_a_tag_gets_a_branch_of_its_own(work: Path) -> None:
    git(work, "tag", "v1")
    git(work, "push", "--quiet", "origin", "v1")
    copy, _, checkout = clone(work, ref="v1")
    assert git(copy, "status", "--porcelain", "--branch") == f"## from-{(checkout.commit or '')[:12]}\n"
    git(copy, "commit", "--quiet", "--allow-empty", "--message", "mine")
    git(copy, "push", "--quiet", "origin", "HEAD")
    assert "from-" in git(work, "ls-remote", "--heads", "origin")


def test_a_folder_of_a_repository_is_at_its_place(work: Path) -> None:
    copy, whole, _ = clone(work, subdir="data")
    assert not whole
    assert [path.name for path in copy.iterdir() if path.name != ".git"] == ["data"]
    assert git(copy, "status", "--porcelain") == ""
    (copy / "data/new").write_text("mine")
    git(copy, "add", "data/new")
    git(copy, "commit", "--quiet", "--message", "mine")
    git(copy, "push", "--quiet")
    git(work, "pull", "--quiet", "origin", "trunk")
    assert (work / "data/new").read_text() == "mine"
    assert (work / "fit.py").exists()


def test_what_a_build_changed_shows_as_changed(work: Path) -> None:
    checkout, history = fetched(work)
    (checkout.root / "fit.py").write_text("changed by postBuild\n")
    for made in ("made.txt", "egg info[1]/PKG", "data2/x*y", "\xe4/x", "#!odd "):
        (checkout.root / made).parent.mkdir(exist_ok=True)
        (checkout.root / made).touch()
    shutil.rmtree(checkout.root / "data")
    assert not write_git(str(checkout.root), read_history(str(history)), checkout.source)
    assert git(checkout.root, "status", "--porcelain") == " M fit.py\n"
    (checkout.root / "data2/xay").touch()
    assert git(checkout.root, "status", "--porcelain", "--untracked-files=all") == " M fit.py\n?? data2/xay\n"
    (checkout.root / "data2/xay").unlink()
    for number in range(1001):
        (checkout.root / f"data2/{number}").touch()
    shutil.rmtree(checkout.root / ".git")
    assert not write_git(str(checkout.root), read_history(str(history)), checkout.source)
    assert git(checkout.root, "status", "--porcelain") == " M fit.py\n"
    assert "\n/data2/\n" in (checkout.root / ".git/info/exclude").read_text()
    # What is missing is the origin's to give.
    git(checkout.root, "checkout", "--quiet", "--", "fit.py")
    assert (checkout.root / "fit.py").read_text() == "print(1)\n"


def test_ends_of_lines_and_large_files_that_git_keeps_otherwise(work: Path) -> None:
    (work / ".gitattributes").write_text("*.txt text eol=crlf\n*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (work / "lines.txt").write_text("one\ntwo\n")
    sha = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize 3\n"
    (work / "large.bin").write_text(pointer)
    push(work, "third")
    checkout, history = fetched(work)
    assert (checkout.root / "lines.txt").read_bytes() == b"one\r\ntwo\r\n"
    (checkout.root / "large.bin").write_text("foo")  # as Git LFS fills it
    assert write_git(str(checkout.root), read_history(str(history)), checkout.source)
    assert git(checkout.root, "status", "--porcelain") == ""
    assert git(checkout.root, "show", "HEAD:large.bin") == pointer
    assert git(checkout.root, "fsck") == ""


def test_without_a_history_there_is_an_origin_to_get_it_from(work: Path) -> None:
    checkout, _ = fetched(work)
    write_git(str(checkout.root), None, checkout.source)
    assert git(checkout.root, "remote", "get-url", "origin").strip() == checkout.source
    git(checkout.root, "fetch", "--quiet", "origin")
    git(checkout.root, "reset", "--quiet", str(checkout.commit))
    assert git(checkout.root, "status", "--porcelain") == ""


SPOILT: dict[str, Callable[[str], str]] = {
    "another id": lambda text: text.replace('"id": "', '"id": "0'),
    "another message": lambda text: text.replace("second", "secind"),
    "another file": lambda text: text.replace("fit.py", "fat.py"),
    "a way out": lambda text: text.replace("fit.py", "../x"),
    "a mode that is none": lambda text: text.replace("100644", "040000"),
    "another format": lambda text: text.replace('"format": 1', '"format": 2'),
    "no JSON": lambda text: text.replace("[", "{"),
    "cut short": lambda text: text[:100],
    "endlessly deep": lambda _: "[" * 100_000,
    "nothing": lambda _: "null",
}
NO_BRANCHES = ("../../x", "a..b", "-x", "x.lock", "a//b", "a/.b", "x y", "a\nb", "x/", 'x"]', "@{x", "", "é" * 300)


def test_a_history_that_is_not_true_is_none(work: Path) -> None:
    _, file = fetched(work)
    true = file.read_text()
    assert read_history(str(file)) is not None
    for what, spoil in SPOILT.items():
        assert spoil(true) != true
        file.write_text(spoil(true))
        assert read_history(str(file)) is None, what
    for name in NO_BRANCHES:
        file.write_text(true.replace('"branch": "trunk"', f'"branch": {json.dumps(name)}'))
        history = read_history(str(file))
        assert history is not None
        assert history.branch == "", name


def test_an_origin_is_a_value_and_no_more(tmp_path: Path) -> None:
    nasty = 'https://example.org/a"\\b;[core]#x'
    write_git(str(tmp_path), None, nasty)
    assert git(tmp_path, "remote", "get-url", "origin").strip() == nasty


def test_the_origin_of_a_clone(work: Path, tmp_path: Path) -> None:
    assert origin_of(str(work)) == f"file://{tmp_path}/bare.git"
    assert origin_of(str(tmp_path)) == ""
    write_git(str(tmp_path), None, "https://example.org/x")
    assert origin_of(str(tmp_path)) == "https://example.org/x"

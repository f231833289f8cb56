"""A local folder is taken as it is, and nothing that its `.git` names is run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from gitrepo import Listener, Repository

from hpcbinder.catalog.files import remove_tree
from hpcbinder.errors import FetchError, UsageError
from hpcbinder.model import Checkout
from hpcbinder.source import fetch


class Take:
    def __init__(self, workdir: Path) -> None:
        self.workdir = workdir
        self.listener = Listener()
        self.count = 0

    def __call__(self, path: object, *, ref: str | None = None, subdir: str | None = None) -> Checkout:
        self.count += 1
        workdir = self.workdir / str(self.count)
        workdir.mkdir()
        return fetch(str(path), ref=ref, subdir=subdir, workdir=workdir, reporter=self.listener)


@pytest.fixture
def take(workdir: Path) -> Take:
    return Take(workdir)


def test_the_folder_itself_with_its_uncommitted_files(repository: Repository, take: Take) -> None:
    head = repository.commit(a="1")
    repository.write("a", "changed")
    repository.write("new", "x")
    checkout = take(repository.path)
    assert checkout == Checkout(
        root=repository.path,
        name="wave-forms-git",
        source=str(repository.path),
        ref="working tree",
        commit=head,
        uncommitted=True,
        tree=None,
        subdir="",
        timestamp=1700000000,
    )
    assert (checkout.root / "a").read_text() == "changed"
    assert take.listener.lines == [f"{repository.path}: working tree on {head[:12]}"]


def test_a_folder_without_git_has_the_time_of_its_newest_file(tmp_path: Path, take: Take) -> None:
    folder = tmp_path / "plain"
    (folder / "deep").mkdir(parents=True)
    for name, seconds in (("a", 1_600_000_000), ("deep/b", 1_650_000_000)):
        (folder / name).write_text("x")
        os.utime(folder / name, (seconds, seconds))
    checkout = take(folder)
    assert (checkout.commit, checkout.timestamp, checkout.ref) == (None, 1_650_000_000, "working tree")


def test_a_ref_cannot_be_asked_of_a_folder(repository: Repository, take: Take) -> None:
    repository.commit(a="1")
    with pytest.raises(UsageError, match="is taken as it is, so --ref cannot be given .*name file://"):
        take(repository.path, ref="main")


def test_a_relative_folder_and_a_link_to_one(
    repository: Repository, take: Take, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository.commit(a="1")
    (tmp_path / "link").symlink_to(repository.path)
    assert take(tmp_path / "link").source == str(repository.path)
    monkeypatch.chdir(repository.path)
    for spec in (".", "./", f"../{repository.path.name}"):
        assert take(spec).root == repository.path


def test_the_subdirectory_of_a_folder(repository: Repository, take: Take) -> None:
    head = repository.commit(top="x", sub___a="1")
    (repository.path / "out").symlink_to("/etc")
    (repository.path / "git").symlink_to(".git")
    checkout = take(repository.path, subdir="sub")
    assert (checkout.root, checkout.subdir, checkout.commit) == (repository.path / "sub", "sub", head)
    assert checkout.name == "wave-forms-git-sub"
    with pytest.raises(FetchError, match="'nope' is not in the repository"):
        take(repository.path, subdir="nope")
    for subdir in ("out", "..", "/etc", ".git", "git", "git/hooks"):
        with pytest.raises(UsageError):
            take(repository.path, subdir=subdir)


def test_head_is_found_however_it_is_kept(repository: Repository, take: Take, tmp_path: Path) -> None:
    first = repository.commit(a="1")
    repository.git("branch", "side/branch")
    second = repository.commit(a="2")

    repository.git("worktree", "add", "--quiet", str(tmp_path / "tree"), "side/branch")
    assert (take(tmp_path / "tree").commit, take(tmp_path / "tree").timestamp) == (first, 1700000000)
    repository.git("pack-refs", "--all")
    repository.git("gc", "--quiet")
    assert take(tmp_path / "tree").commit == first
    assert (take(repository.path).commit, take(repository.path).timestamp) == (second, 1700000000)
    repository.git("checkout", "--quiet", first)
    assert take(repository.path).commit == first


def test_before_the_first_commit_there_is_none(repository: Repository, take: Take) -> None:
    repository.write("a", "x")
    assert take(repository.path).commit is None


def test_a_sha256_folder(tmp_path: Path, take: Take) -> None:
    other = Repository(tmp_path / "two", "--object-format=sha256")
    head = other.commit(a="1")
    checkout = take(other.path)
    assert (checkout.commit, checkout.timestamp) == (head, 1700000000)


def test_nothing_that_the_folders_git_configuration_names_is_run(
    repository: Repository, take: Take, tmp_path: Path
) -> None:
    head = repository.commit(a="1", **{"__gitattributes": "* filter=evil\n"})
    canary = tmp_path / "canary"
    program = tmp_path / "evil"
    program.write_text(f"#!/bin/sh\necho run $0 $* >> {canary}\n")
    program.chmod(0o755)
    with (repository.path / ".git" / "config").open("a") as config:
        config.write(
            f"[core]\n fsmonitor = {program}\n hooksPath = {tmp_path}\n sshCommand = {program}\n pager = {program}\n"
            f" alternateRefsCommand = {program}\n editor = {program}\n askPass = {program}\n"
            f'[filter "evil"]\n smudge = {program}\n clean = {program}\n process = {program}\n required = true\n'
            f'[remote "origin"]\n url = ext::{program}\n promisor = true\n uploadpack = {program}\n'
            "[extensions]\n partialClone = origin\n"
            f"[diff]\n external = {program}\n[gpg]\n program = {program}\n[credential]\n helper = {program}\n"
            "[log]\n showSignature = true\n"
        )
    for name in ("post-checkout", "reference-transaction", "post-index-change", "fsmonitor-watchman"):
        shutil.copy(program, repository.path / ".git" / "hooks" / name)
    # an index that git would refresh, and a commit that is missing would be asked of the promisor
    repository.write("a", "changed")
    assert take(repository.path).commit == head
    assert not canary.exists()
    (repository.path / ".git" / "refs" / "heads" / "main").write_text("1" * 40 + "\n")
    assert take(repository.path).commit == "1" * 40
    assert not canary.exists()


@pytest.mark.parametrize(
    "head",
    ["ref: ../../../etc/passwd", "ref: refs/../../x", "ref: refs/heads/main\nx", "", "x" * 100_000, "\0", "ref: HEAD"],
)
def test_a_strange_head_is_no_commit(repository: Repository, take: Take, head: str) -> None:
    repository.commit(a="1")
    (repository.path / ".git" / "HEAD").write_text(head)
    assert take(repository.path).commit is None


def test_what_would_hang_or_loop_does_not(repository: Repository, take: Take) -> None:
    repository.commit(a="1")
    git = repository.path / ".git"
    (git / "HEAD").unlink()
    os.mkfifo(git / "HEAD")
    assert take(repository.path).commit is None
    (git / "HEAD").unlink()
    (git / "HEAD").write_text("ref: refs/heads/a\n")
    (git / "refs/heads/a").write_text("ref: refs/heads/b\n")
    (git / "refs/heads/b").write_text("ref: refs/heads/a\n")
    assert take(repository.path).commit is None
    # A branch without a commit, of which others are named.
    (git / "refs/heads/c").mkdir()
    (git / "HEAD").write_text("ref: refs/heads/c\n")
    assert take(repository.path).commit is None
    shutil.rmtree(git)
    git.write_text("gitdir: /dev/zero\n")
    assert take(repository.path).commit is None
    git.unlink()
    git.symlink_to("/dev/zero")
    assert take(repository.path).commit is None


def test_a_very_deep_folder_has_a_time(tmp_path: Path, take: Take) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    (folder / "a").write_text("x")
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(2500):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    try:
        assert take(folder).timestamp == int((folder / "a").stat().st_mtime)
    finally:
        remove_tree(folder)  # pytest itself could not


def test_a_folder_is_taken_without_git_too(repository: Repository, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    head = repository.commit(a="1")
    monkeypatch.setenv("PATH", "/nonexistent")
    checkout = take(repository.path)
    assert checkout.commit == head
    assert checkout.timestamp == int((repository.path / "a").stat().st_mtime)

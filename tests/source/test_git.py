"""Git sources, fetched from real repositories."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from gitrepo import Listener, Repository

from hpcbinder.errors import FetchError, UsageError
from hpcbinder.model import Checkout
from hpcbinder.source import fetch


@pytest.fixture
def get(repository: Repository, workdir: Path, listener: Listener) -> Get:
    return Get(repository, workdir, listener)


class Get:
    """`fetch` of the test's repository, each time into a folder of its own."""

    def __init__(self, repository: Repository, workdir: Path, listener: Listener) -> None:
        self.repository, self.workdir, self.listener, self.count = repository, workdir, listener, 0

    def __call__(self, ref: str | None = None, *, subdir: str | None = None, spec: str | None = None) -> Checkout:
        self.count += 1
        workdir = self.workdir / str(self.count)
        workdir.mkdir()
        url = self.repository.url.replace(" ", "%20")
        return fetch(spec or url, ref=ref, subdir=subdir, workdir=workdir, reporter=self.listener)


def names(checkout: Checkout) -> set[str]:
    return {str(p.relative_to(checkout.root)) for p in checkout.root.rglob("*")}


def test_the_default_branch_is_fetched_shallow_and_without_git(repository: Repository, get: Get) -> None:
    repository.commit(a="old")
    head = repository.commit(a="new", b___c="x")
    checkout = get()
    assert names(checkout) == {"a", "b", "b/c"}
    assert (checkout.root / "a").read_text() == "new"
    assert checkout.commit == head
    assert checkout.tree == repository.git("rev-parse", "HEAD^{tree}")
    assert (checkout.ref, checkout.name, checkout.subdir) == ("HEAD", "wave-forms", "")
    assert checkout.source == repository.url.replace(" ", "%20")
    assert (checkout.uncommitted, checkout.timestamp) == (False, 1700000000)
    assert [p.name for p in checkout.root.parent.iterdir()] == ["source"]
    assert get.listener.progress[-1] == 1.0


def test_branch_tags_and_commits(repository: Repository, get: Get) -> None:
    first = repository.commit(a="1")
    repository.git("tag", "light")
    repository.git("tag", "-a", "v1.0", "-m", "annotated")
    repository.git("branch", "feature/main")
    second = repository.commit(a="2")
    for ref in ("light", "v1.0", "feature/main", "refs/tags/v1.0", "refs/heads/feature/main", first, first[:7]):
        assert get(ref).commit == first, ref
        assert get(ref).ref == ref
    for ref in ("main", "HEAD", None, second.upper(), second[:10]):
        assert get(ref).commit == second, ref


def test_a_name_with_slashes_is_never_taken_for_its_end(repository: Repository, get: Get) -> None:
    repository.commit(a="1")
    with pytest.raises(FetchError, match="no branch, tag or commit 'feature/main'"):
        get("feature/main")
    repository.git("branch", "x/main")
    repository.git("checkout", "--quiet", "-b", "other")
    repository.commit(a="2")
    assert get("main").commit == repository.git("rev-parse", "refs/heads/main")


def test_a_branch_named_like_a_tag_is_said(repository: Repository, get: Get) -> None:
    tagged = repository.commit(a="1")
    repository.git("tag", "v1")
    branched = repository.commit(a="2")
    repository.git("branch", "v1")
    assert get("v1").commit == branched
    assert "v1 is a branch and a tag: the branch is taken (the tag is refs/tags/v1)" in get.listener.lines
    assert get("refs/tags/v1").commit == tagged


def test_a_branch_may_look_like_a_commit(repository: Repository, get: Get) -> None:
    repository.commit(a="1")
    repository.git("branch", "cafe")
    named = repository.git("rev-parse", "cafe")
    repository.commit(a="2")
    assert get("cafe").commit == named


def test_a_ref_that_is_not_there_offers_the_close_ones(repository: Repository, get: Get) -> None:
    repository.commit(a="1")
    repository.git("branch", "develop")
    with pytest.raises(FetchError) as caught:
        get("devlop")
    assert str(caught.value).endswith("no branch, tag or commit 'devlop' (did you mean develop?)")
    with pytest.raises(FetchError, match="there are: develop, main"):
        get("zzz")
    with pytest.raises(FetchError, match=f"no commit {'0' * 40} in the repository"):
        get("0" * 40)
    with pytest.raises(FetchError, match="no branch or tag is named 00000000, and no commit"):
        get("00000000")


def test_a_short_commit_that_fits_two_is_an_error(repository: Repository, get: Get) -> None:
    repository.commit(a="1")
    tree = repository.git("rev-parse", "HEAD^{tree}")
    seen: dict[str, str] = {}
    for number in range(2000):  # birthdays: two commits whose ids share four digits
        commit = repository.git("commit-tree", tree, "-m", str(number))
        if commit[:4] in seen:
            break
        seen[commit[:4]] = commit
    repository.git("branch", "one", seen[commit[:4]])
    repository.git("branch", "two", commit)
    with pytest.raises(FetchError, match=f"2 commits begin with {commit[:4]}.*give more of it"):
        get(commit[:4])
    assert get(commit[:12]).commit == commit


@pytest.mark.parametrize("allowed", [True, False])
def test_a_commit_no_ref_stands_on(repository: Repository, get: Get, allowed: bool) -> None:
    old = repository.commit(a="1")
    repository.commit(a="2")
    repository.git("config", "uploadpack.allowFilter", str(allowed).lower())
    # protocol 0 has no "any commit", as some servers have not
    subprocess.run(["git", "config", "--global", "protocol.version", "2" if allowed else "0"], check=True)
    for ref in (old, old[:8]):
        checkout = get(ref)
        assert (checkout.root / "a").read_text() == "1"
        assert checkout.commit == old
    assert any("fetching everything" in line for line in get.listener.lines) is (not allowed)


def test_a_tag_that_is_no_commit(repository: Repository, get: Get) -> None:
    repository.commit(a="1")
    repository.git("tag", "blob", repository.git("rev-parse", "HEAD:a"))
    with pytest.raises(FetchError, match="'blob' is not a commit"):
        get("blob")


def test_an_empty_repository_and_one_without_a_default_branch(repository: Repository, get: Get) -> None:
    with pytest.raises(FetchError, match="the repository is empty"):
        get()
    repository.commit(a="1")
    repository.git("symbolic-ref", "HEAD", "refs/heads/gone")
    with pytest.raises(FetchError, match=r"no default branch \(give --ref: main\)"):
        get()


def test_a_sha256_repository(tmp_path: Path, get: Get) -> None:
    other = Repository(tmp_path / "two", "--object-format=sha256")
    old = other.commit(a="1")
    other.commit(a="2")
    for ref in (None, old, old[:9], "main"):
        assert len(get(ref, spec=other.url).commit or "") == 64


def test_a_subdirectory_is_the_root_with_its_own_tree(repository: Repository, get: Get) -> None:
    repository.commit(top="x", **{"some Folder___deep___a": "1"})
    checkout = get(subdir="./some Folder//deep/")
    assert names(checkout) == {"a"}
    assert checkout.subdir == "some Folder/deep"
    assert checkout.tree == repository.git("rev-parse", "HEAD:some Folder/deep")
    assert checkout.name == "wave-forms-deep"


def test_a_subdirectory_must_be_a_folder_inside(repository: Repository, get: Get) -> None:
    (repository.path / "inside").symlink_to("real")
    (repository.path / "out").symlink_to("/etc")
    (repository.path / "up").symlink_to("..")
    (repository.path / "round").symlink_to("round")
    repository.commit(file="x", real___a="1")
    assert get(subdir="inside").subdir == "real"
    for subdir, message in (
        ("nope", "is not in the repository"),
        ("file", "is not a folder"),
        ("round", "cannot be entered|is not in the repository"),
        ("a" * 300, "cannot be entered: File name too long|is not in the repository"),
    ):
        with pytest.raises(FetchError, match=message):
            get(subdir=subdir)
    for subdir in ("out", "up", "out/ssh", "../..", "/etc"):
        with pytest.raises(UsageError):
            get(subdir=subdir)


def test_the_same_files_whatever_the_person_prefers(repository: Repository, get: Get, home: Path) -> None:
    repository.commit(text="a\nb\n", **{"__gitattributes": "* text=auto\n"})
    (repository.path / "run").write_text("#!/bin/sh\n")
    (repository.path / "run").chmod(0o755)
    (repository.path / "link").symlink_to("text")
    repository.commit()
    (home / ".gitconfig").write_text("[core]\n autocrlf = true\n eol = crlf\n symlinks = false\n fileMode = false\n")
    root = get().root
    assert (root / "text").read_bytes() == b"a\nb\n"
    assert (root / "link").is_symlink()
    assert (root / "run").stat().st_mode & 0o111
    assert not (root / "text").stat().st_mode & 0o111


def test_a_repository_that_is_not_there(get: Get, tmp_path: Path) -> None:
    with pytest.raises(FetchError) as caught:
        get(spec=f"file://{tmp_path}/nothing")
    assert str(caught.value).startswith(f"file://{tmp_path}/nothing: no such repository: ")
    with pytest.raises(FetchError, match="cannot reach the server: "):
        get(spec="http://127.0.0.1:9/x")
    with pytest.raises(FetchError, match="cannot reach the server: "):
        get(spec="git://127.0.0.1:9/x")


def test_without_git_there_is_a_clear_word(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    get.repository.commit(a="1")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(FetchError, match="git.*install git"):
        get()


def test_a_bare_repository_named_by_its_path(repository: Repository, get: Get, tmp_path: Path) -> None:
    head = repository.commit(a="1")
    subprocess.run(["git", "clone", "--quiet", "--bare", repository.path, tmp_path / "b.git"], check=True)
    checkout = get(spec=str(tmp_path / "b.git"))
    assert (checkout.commit, checkout.source) == (head, f"file://{tmp_path}/b.git")


def test_the_variables_of_a_git_hook_do_not_mislead(
    repository: Repository, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = repository.commit(a="1")
    mine = Repository(tmp_path / "mine")
    mine.commit(mine="x")
    before = mine.git("for-each-ref"), mine.git("status", "--porcelain")
    for name, value in (("GIT_DIR", ".git"), ("GIT_INDEX_FILE", ".git/index"), ("GIT_WORK_TREE", ".")):
        monkeypatch.setenv(name, str(mine.path / value))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.fsmonitor=true'")
    checkout = get()
    assert checkout.commit == head
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_CONFIG_PARAMETERS"):
        monkeypatch.delenv(name)
    assert (mine.git("for-each-ref"), mine.git("status", "--porcelain")) == before


def test_a_listener_that_breaks_breaks_the_fetch_and_not_git(repository: Repository, workdir: Path) -> None:
    repository.commit(**{f"file{number}": str(number) for number in range(300)})

    class Broken(Listener):
        def log(self, phase: str, line: str) -> None:
            raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError, match="nobody reads"):
        fetch(repository.url.replace(" ", "%20"), ref=None, subdir=None, workdir=workdir, reporter=Broken())


def test_files_that_cannot_be_written_are_one_line(
    repository: Repository, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(a="1")

    def full(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(FetchError, match="cannot write the files: No space left on device"):
        get()

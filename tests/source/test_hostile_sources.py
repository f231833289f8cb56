"""Repositories, refs and URLs made to do harm: nothing runs, nothing lands outside, one line says what is wrong."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import zlib
from pathlib import Path

import pytest
from gitrepo import Listener, Repository

from hpcbinder.catalog.files import remove_tree
from hpcbinder.errors import FetchError, HpcbinderError, UsageError
from hpcbinder.source import fetch


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """Exists once something was run that must not be: `evil` writes it."""
    path = tmp_path / "canary"
    program = tmp_path / "evil"
    program.write_text(f"#!/bin/sh\necho run $* >> {path}\n")
    program.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("spec", "ref"),
    [
        ("ext::sh -c {evil}", None),
        ("ext::{evil}", "main"),
        ("--upload-pack={evil}", None),
        ("-u{evil}", None),
        ("ssh://-oProxyCommand={evil}/x", None),
        ("ssh://x@-oProxyCommand={evil}/x", None),
        ("-oProxyCommand={evil}:x", None),
        ("x@-oProxyCommand={evil}:x", None),
        ("fd::0", None),
        ("{url}", "--upload-pack={evil}"),
        ("{url}", "-u{evil}"),
        ("{url}", "main;{evil}"),
        ("{url}", "$({evil})"),
        ("{url}", "`{evil}`"),
        ("{url}", "main:refs/heads/x"),
        ("{url}", "+main"),
        ("{url}", "main\n{evil}"),
        ("{url}", "main\0"),
        ("{url};{evil}", None),
        ("gh:$({evil})/x", None),
    ],
)
def test_what_could_be_an_option_or_a_command_is_none(
    repository: Repository, workdir: Path, listener: Listener, canary: Path, spec: str, ref: str | None
) -> None:
    repository.commit(a="1")
    evil = str(canary.with_name("evil"))
    url = repository.url.replace(" ", "%20")
    spec = spec.format(evil=evil, url=url)
    with pytest.raises(HpcbinderError) as caught:
        fetch(spec, ref=ref and ref.format(evil=evil), subdir=None, workdir=workdir, reporter=listener)
    assert isinstance(caught.value, (UsageError, FetchError))
    assert len(str(caught.value).splitlines()) == 1
    assert not canary.exists()
    assert not (workdir / "source").exists()


def test_a_helper_of_the_persons_own_rewriting_is_refused_by_git(
    repository: Repository, workdir: Path, listener: Listener, canary: Path, home: Path
) -> None:
    evil = canary.with_name("evil")
    (home / ".gitconfig").write_text(
        f'[url "ext::{evil} "]\n insteadOf = https://example.org/\n[protocol "ext"]\n allow = always\n'
    )
    with pytest.raises(FetchError, match="transport 'ext' not allowed"):
        fetch("https://example.org/x", ref=None, subdir=None, workdir=workdir, reporter=listener)
    assert not canary.exists()


def test_no_filter_hook_or_monitor_of_the_person_runs_for_a_repository(
    repository: Repository, workdir: Path, listener: Listener, canary: Path, home: Path
) -> None:
    evil = canary.with_name("evil")
    hooks = home / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc"):
        (hooks / name).symlink_to(evil)
    template = home / "template"
    (template / "hooks").mkdir(parents=True)
    (template / "hooks" / "post-checkout").symlink_to(evil)
    (home / ".gitconfig").write_text(
        f"[core]\n hooksPath = {hooks}\n fsmonitor = {evil}\n attributesFile = {home}/attributes\n"
        f"[init]\n templateDir = {template}\n"
        + "".join(
            f'[filter "{name}"]\n smudge = {evil}\n clean = {evil}\n process = {evil}\n required = true\n'
            for name in ("lfs", "other", "mine")
        )
    )
    (home / "attributes").write_text("* filter=mine\n")
    repository.git("config", "core.hooksPath", "/dev/null")
    repository.git("config", "core.fsmonitor", "false")
    repository.git("config", "core.attributesFile", "/dev/null")
    repository.commit(a="1", sub___b="2", c="3")
    repository.write(".gitattributes", "[attr]sneaky filter=other\n*.x filter=lfs\na sneaky\nc filter=other\n")
    repository.write("sub/.gitattributes", "* filter=other\n")
    repository.write("y.x", "stored")
    # the canary's own commands may not run here either: add without filters
    (repository.path / ".git" / "info").mkdir(exist_ok=True)
    (repository.path / ".git" / "info" / "attributes").write_text("* -filter\n")
    repository.commit()
    assert not canary.exists()
    checkout = fetch(repository.url.replace(" ", "%20"), ref=None, subdir=None, workdir=workdir, reporter=listener)
    assert not canary.exists()
    assert (checkout.root / "y.x").read_text() == "stored"
    assert (checkout.root / "sub" / "b").read_text() == "2"


def tree_of(repository: Repository, *lines: str) -> str:
    """A commit with a tree that `git add` would not make."""
    tree = repository.git("mktree", "--missing", "-z", stdin=b"".join(line.encode() + b"\0" for line in lines))
    return repository.git("commit-tree", tree, "-m", "hostile")


@pytest.mark.parametrize("name", [".git", ".GIT", "..", ".", ".git "])
def test_a_tree_that_would_write_into_git_or_upwards_is_refused(
    repository: Repository, workdir: Path, listener: Listener, name: str
) -> None:
    blob = repository.git("hash-object", "-w", "--stdin", stdin=b"[core]\n fsmonitor = evil\n")
    inner = repository.git("mktree", "-z", stdin=f"100644 blob {blob}\tconfig\0".encode())
    repository.git("branch", "main", tree_of(repository, f"040000 tree {inner}\t{name}"))
    before = sorted(workdir.parent.iterdir())
    try:
        checkout = fetch(
            repository.url.replace(" ", "%20"), ref="main", subdir=None, workdir=workdir, reporter=listener
        )
    except FetchError as error:
        assert "git refuses" in str(error) or "git failed" in str(error)
    else:
        assert name == ".git "  # only an NTFS would take it for .git
        assert [p.name for p in checkout.root.iterdir()] == [name]
    assert sorted(workdir.parent.iterdir()) == before


def test_a_link_and_a_file_through_it_stay_inside(
    repository: Repository, workdir: Path, listener: Listener, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = repository.git("hash-object", "-w", "--stdin", stdin=str(outside).encode())
    blob = repository.git("hash-object", "-w", "--stdin", stdin=b"owned")
    inner = repository.git("mktree", "-z", stdin=f"100644 blob {blob}\tfile\0".encode())
    commit = tree_of(repository, f"120000 blob {target}\tdir", f"040000 tree {inner}\tdir")
    repository.git("branch", "main", commit)
    try:
        fetch(repository.url.replace(" ", "%20"), ref="main", subdir=None, workdir=workdir, reporter=listener)
    except FetchError as error:
        assert len(str(error).splitlines()) == 1
    assert list(outside.iterdir()) == []


def test_names_with_newlines_and_bytes_arrive_as_they_are(
    repository: Repository, workdir: Path, listener: Listener
) -> None:
    odd = [b"a\nb", b"\xff\xfe", b" lead", b"-rf", b"$(x)", b"\x1b[31m"]
    for name in odd:
        (repository.path / os.fsdecode(name)).write_text("x")
    repository.commit()
    checkout = fetch(repository.url.replace(" ", "%20"), ref=None, subdir=None, workdir=workdir, reporter=listener)
    assert sorted(os.fsencode(p.name) for p in checkout.root.iterdir()) == sorted(odd)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (2_500, "a path in the repository is longer than this system allows: "),
        # git 2.39 exhausts its stack, a newer one has core.maxTreeDepth
        (10_000, "(git crashed on it .signal 11. .its folders may be nested too deeply|.*(too long|maximum.*depth))"),
    ],
)
def test_a_very_deep_tree_is_one_line(
    repository: Repository, workdir: Path, listener: Listener, levels: int, message: str
) -> None:
    repository.git("config", "pack.window", "0")  # or each pair of files is compared by way of its .gitattributes
    blob = repository.git("hash-object", "-w", "--stdin", stdin=b"x")
    objects = repository.path / ".git" / "objects"

    def tree(mode: bytes, name: bytes, id_: str) -> str:
        content = mode + b" " + name + b"\0" + bytes.fromhex(id_)
        raw = b"tree %d\0" % len(content) + content
        new = hashlib.sha1(raw).hexdigest()
        path = objects / new[:2] / new[2:]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zlib.compress(raw, 1))
        return new

    top = tree(b"100644", b"f", blob)
    for _ in range(levels):
        top = tree(b"40000", b"d", top)
    repository.git("branch", "main", repository.git("commit-tree", top, "-m", "deep"))
    try:
        with pytest.raises(FetchError, match=f": {message}") as caught:
            fetch(repository.url.replace(" ", "%20"), ref="main", subdir=None, workdir=workdir, reporter=listener)
    finally:
        remove_tree(workdir)  # pytest itself could not
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


def test_what_a_server_says_cannot_write_to_the_terminal(workdir: Path, listener: Listener) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                text = b"ERR \x1b[2J\x1b]0;owned\x07 gone\n"
                connection.sendall(b"%04x" % (len(text) + 4) + text)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(FetchError) as caught:
            fetch(
                f"git://127.0.0.1:{server.getsockname()[1]}/x",
                ref=None,
                subdir=None,
                workdir=workdir,
                reporter=listener,
            )
        thread.join(10)
    assert "\x1b" not in str(caught.value) and "\x07" not in str(caught.value)
    assert not any("\x1b" in line for line in listener.lines)


def test_a_server_that_says_nothing_is_given_up(workdir: Path) -> None:
    from hpcbinder.source.command import GitCommand

    with socket.create_server(("127.0.0.1", 0)) as server:
        git = GitCommand(workdir / "x.git")
        git.init()
        url = f"git://127.0.0.1:{server.getsockname()[1]}/x"
        with pytest.raises(FetchError, match="git ls-remote gave up after 1 s"):
            git.run(["ls-remote", "--", url], timeout=1)
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(url.encode() in command for command in running)


def test_promises_of_a_local_repository_are_not_kept_by_running_programs(
    repository: Repository, workdir: Path, listener: Listener, canary: Path
) -> None:
    """CVE-2024-32465: a served repository that names a program for what it lacks."""
    repository.commit(a="1")
    blob = repository.git("rev-parse", "HEAD:a")
    (repository.path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    evil = canary.with_name("evil")
    with (repository.path / ".git" / "config").open("a") as config:
        config.write(
            f'[remote "origin"]\n url = file:///{repository.path}\n promisor = true\n uploadpack = {evil}\n'
            "[extensions]\n partialClone = origin\n[core]\n repositoryFormatVersion = 1\n"
            f"[uploadpack]\n packObjectsHook = {evil}\n"
        )
    with pytest.raises(FetchError):
        fetch(repository.url.replace(" ", "%20"), ref=None, subdir=None, workdir=workdir, reporter=listener)
    assert not canary.exists()

"""Files in Git LFS, fetched by our own client from a stand-in for a git host's server (see `lfs.py`)."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from gitrepo import Listener, Repository
from lfs import LOGIN, Server, commit_large, lfs_server, pointer

from hpcbinder.config import SourceConfig
from hpcbinder.errors import FetchError
from hpcbinder.model import Checkout
from hpcbinder.source import fetch

LARGE = b"\x00large\xff" * 300_000
SMALL = b"small"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "srv" / "waves.git")


@pytest.fixture
def server(repository: Repository) -> Iterator[Server]:
    with lfs_server(repository.path.parent) as server:
        yield server


@pytest.fixture
def get(workdir: Path, listener: Listener) -> Get:
    return Get(workdir, listener)


class Get:
    def __init__(self, workdir: Path, listener: Listener) -> None:
        self.workdir, self.listener, self.count = workdir, listener, 0

    def __call__(
        self, spec: str, *, subdir: str | None = None, source: SourceConfig | None = None, named: bool = True
    ) -> Checkout:
        self.count += 1
        workdir = self.workdir / str(self.count)
        workdir.mkdir()
        return fetch(spec, ref=None, subdir=subdir, workdir=workdir, reporter=self.listener, source=source, named=named)


def test_files_come_in_the_place_of_their_pointers(repository: Repository, server: Server, get: Get) -> None:
    repository.write("run.bin", "x")
    (repository.path / "run.bin").chmod(0o755)
    files = {"a.bin": LARGE, "sub/b.bin": SMALL, "again.bin": SMALL, "run.bin": b"#!/bin/sh\n", "empty.bin": b""}
    commit_large(repository, files)
    repository.commit(plain="1", **{"not_by_lfs": pointer(b"whatever")})
    server.have(*files.values())
    checkout = get(f"{server.url}/waves.git")
    for name, contents in files.items():
        assert (checkout.root / name).read_bytes() == contents
    assert (checkout.root / "not_by_lfs").read_text() == pointer(b"whatever")
    assert stat.S_IMODE((checkout.root / "run.bin").stat().st_mode) & 0o111
    assert not stat.S_IMODE((checkout.root / "a.bin").stat().st_mode) & 0o111
    assert checkout.tree == repository.git("rev-parse", "HEAD^{tree}")
    assert [p.name for p in checkout.root.parent.iterdir()] == ["source"]
    assert [(note.file, note.used, note.reason) for note in checkout.notes] == [
        ("a.bin", True, "fetched from Git LFS and 4 more")
    ]
    assert sum(line.startswith("GET /store/") for line in server.asked) == 4  # the same contents once
    assert get.listener.progress.count(1.0) >= 2


def test_only_the_subdirectorys_are_fetched(repository: Repository, server: Server, get: Get) -> None:
    commit_large(repository, {"a.bin": LARGE, "sub/b.bin": SMALL})
    server.have(SMALL)  # the other is not even there
    assert (get(f"{server.url}/waves.git", subdir="sub").root / "b.bin").read_bytes() == SMALL


def test_more_files_than_one_question_holds(repository: Repository, server: Server, get: Get) -> None:
    files = {f"{number}.bin": b"%d" % number for number in range(130)}
    commit_large(repository, files)
    server.have(*files.values())
    checkout = get(f"{server.url}/waves.git")
    assert {p.name: p.read_bytes() for p in checkout.root.glob("*.bin")} == files
    assert sum("objects/batch" in line for line in server.asked) == 2


def test_pointers_can_be_left(repository: Repository, server: Server, get: Get) -> None:
    commit_large(repository, {"a.bin": LARGE})
    server.have(LARGE)
    left = get(f"{server.url}/waves.git", source=SourceConfig(lfs="leave"))
    assert (left.root / "a.bin").read_text() == pointer(LARGE)
    assert not any("lfs" in line for line in server.asked)
    assert [note.used for note in left.notes] == [False]
    assert "a.bin: pointers to Git LFS, which are left (source.lfs)" in get.listener.lines
    assert left.tree != get(f"{server.url}/waves.git").tree


def test_what_the_server_lacks_is_named(repository: Repository, server: Server, get: Get) -> None:
    commit_large(repository, {"a.bin": LARGE, "b.bin": SMALL})
    server.have(SMALL)
    with pytest.raises(FetchError) as caught:
        get(f"{server.url}/waves.git")
    assert str(caught.value) == (
        f"{server.url}/waves.git: files in Git LFS: not on the server: a.bin (Object does not exist)"
        " (--no-lfs leaves the pointers)"
    )


def test_what_is_not_what_its_pointer_says_is_not_taken(
    repository: Repository, server: Server, get: Get, workdir: Path
) -> None:
    commit_large(repository, {"a.bin": LARGE})
    for wrong in (b"x" * len(LARGE), LARGE + b"more", LARGE[:-1]):
        server.objects = {hashlib.sha256(LARGE).hexdigest(): wrong}
        with pytest.raises(FetchError, match="'a.bin' is not what its pointer says"):
            get(f"{server.url}/waves.git")
        assert (workdir / str(get.count) / "source" / "a.bin").read_text() == pointer(LARGE)


def test_the_size_is_limited_before_anything_is_fetched(repository: Repository, server: Server, get: Get) -> None:
    commit_large(repository, {"a.bin": LARGE})
    repository.write("huge.bin", pointer(b"").replace("size 0", "size 900000000000000000"))
    repository.commit()
    server.have(LARGE, b"")
    with pytest.raises(FetchError, match="900000.0 TB: more than is fetched .107.4 GB. .raise source.limit"):
        get(f"{server.url}/waves.git")
    assert not any("lfs" in line for line in server.asked)


def test_a_login_of_the_url_or_of_gits_helpers_is_used_on_its_own_host_only(
    repository: Repository, server: Server, get: Get, home: Path
) -> None:
    commit_large(repository, {"a.bin": LARGE})
    server.have(LARGE)
    server.private = True
    with pytest.raises(FetchError, match="info/lfs/objects/batch: needs a login: Credentials needed"):
        get(f"{server.url}/waves.git")
    here, there = server.url, server.url.replace("127.0.0.1", "localhost")
    server.link = lambda oid: {"href": f"{there}/store/{oid}"}
    (home / ".gitconfig").write_text("[credential]\n helper = store\n")
    (home / ".git-credentials").write_text(f"{here.replace('//', '//ann:ge%40heim%2F1@')}\n")
    # What a repository asked for (a git requirement) is had without the person's logins.
    with pytest.raises(FetchError, match="needs a login"):
        get(f"{here}/waves.git", source=SourceConfig(hosts=("127.0.0.1",)), named=False)
    for spec in (f"{here}/waves.git", f"{here.replace('//', '//ann:ge%40heim%2F1@')}/waves.git"):
        server.asked.clear()
        # the other name of this machine is another host
        assert (get(spec, source=SourceConfig(hosts=("localhost",))).root / "a.bin").read_bytes() == LARGE
        assert any(line.endswith(f"objects/batch {LOGIN}") for line in server.asked)
        assert [line for line in server.asked if "/store/" in line and "Basic" in line] == []
    assert "ge@heim" not in " ".join(get.listener.lines)


def test_what_the_server_gives_for_a_download_goes_with_it(repository: Repository, server: Server, get: Get) -> None:
    commit_large(repository, {"a.bin": LARGE})
    server.have(LARGE)
    server.link = lambda oid: {"href": f"{server.url}/store/{oid}", "header": {"Authorization": "RemoteAuth pass"}}
    get(f"{server.url}/waves.git")
    assert any(line.startswith("GET /store/") and line.endswith(" RemoteAuth pass") for line in server.asked)


def test_files_of_a_repository_of_this_machine(repository: Repository, get: Get, home: Path) -> None:
    commit_large(repository, {"a.bin": LARGE})
    with pytest.raises(FetchError, match="'a.bin' is in Git LFS, and not in the folder .*git lfs fetch"):
        get(repository.url)
    oid = hashlib.sha256(LARGE).hexdigest()
    kept = repository.path / ".git" / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
    kept.parent.mkdir(parents=True)
    os.mkfifo(kept)
    with pytest.raises(FetchError, match="not in the folder"):
        get(repository.url)
    kept.unlink()
    kept.write_bytes(LARGE)
    assert (get(repository.url).root / "a.bin").read_bytes() == LARGE
    # what a README names is looked for where the person's git looks for it
    (home / ".gitconfig").write_text(f'[url "{repository.url}"]\n insteadOf = https://github.com/org/waves\n')
    assert (get("gh:org/waves").root / "a.bin").read_bytes() == LARGE


def test_over_ssh_the_server_says_where_and_gives_a_pass(
    repository: Repository, server: Server, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for ssh, and for the git host's command behind it."""
    commit_large(repository, {"a.bin": LARGE})
    server.have(LARGE)
    ssh = tmp_path / "ssh"
    told = f'{{"href": "{server.url}/waves.git/info/lfs", "header": {{"Authorization": "RemoteAuth ticket"}}}}'
    ssh.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nfor last; do :; done\n'
        f"case $last in git-lfs-authenticate*) echo '{told}';; *) exec sh -c \"$last\";; esac\n"
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    spec = f"ssh://git@example.org:2222{repository.path}"
    assert (get(spec, source=SourceConfig(hosts=("127.0.0.1",))).root / "a.bin").read_bytes() == LARGE
    asked = (tmp_path / "asked").read_text()
    assert f"-p 2222 git@example.org git-lfs-authenticate {repository.path} download" in asked
    assert any("objects/batch RemoteAuth ticket" in line for line in server.asked)


def test_a_repository_that_got_another_name(repository: Repository, server: Server, get: Get) -> None:
    commit_large(repository, {"a.bin": LARGE})
    server.have(LARGE)
    server.moved["/waves.git/info/lfs/objects/batch"] = "/new/info/lfs/objects/batch"
    assert (get(f"{server.url}/waves.git").root / "a.bin").read_bytes() == LARGE
    server.moved["/waves.git/info/lfs/objects/batch"] = server.url.replace("127.0.0.1", "localhost") + "/x"
    with pytest.raises(FetchError, match="HTTP status 307"):
        get(f"{server.url}/waves.git")


def test_a_login_in_the_persons_own_rewriting_serves_and_is_not_shown(
    repository: Repository, server: Server, get: Get, home: Path
) -> None:
    commit_large(repository, {"a.bin": LARGE})
    server.have(LARGE)
    server.private = True
    base = server.url.replace("//", "//ann:ge%40heim%2F1@")
    (home / ".gitconfig").write_text(f'[url "{base}/"]\n insteadOf = https://git.example.org/\n')
    assert (get("https://git.example.org/waves.git").root / "a.bin").read_bytes() == LARGE
    server.have()
    server.objects.clear()
    with pytest.raises(FetchError) as caught:
        get("https://git.example.org/waves.git")
    assert "heim" not in str(caught.value) + " ".join(get.listener.lines)


def test_files_of_submodules(repository: Repository, server: Server, get: Get) -> None:
    other = Repository(repository.path.parent / "other.git")
    commit_large(other, {"c.bin": SMALL})
    server.have(SMALL)
    repository.git("-c", "protocol.http.allow=always", "submodule", "add", "--quiet", f"{server.url}/other.git", "lib")
    repository.commit(a="1")
    checkout = get(f"{server.url}/waves.git")
    assert (checkout.root / "lib/c.bin").read_bytes() == SMALL
    assert [note.file for note in checkout.notes] == [".gitmodules", "lib/c.bin"]


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example.org/lfs",
        "http://169.254.169.254/lfs",
        "file:///etc",
        "ssh://git@127.0.0.1/x",
        "https://ann:x@127.0.0.1/x",
        "--upload-pack=x",
    ],
)
def test_a_repository_does_not_choose_another_server(
    repository: Repository, server: Server, get: Get, url: str
) -> None:
    repository.write(".lfsconfig", f"[lfs]\n\turl = {url}\n[include]\n\tpath = /etc/passwd\n")
    commit_large(repository, {"a.bin": LARGE})
    server.have(LARGE)
    with pytest.raises(FetchError, match=r".lfsconfig: keeps its large files at .*, elsewhere than itself") as caught:
        get(f"{server.url}/waves.git")
    assert len(str(caught.value).splitlines()) == 1
    assert not any("lfs" in line or "store" in line for line in server.asked)


def test_its_own_server_may_have_another_path(repository: Repository, server: Server, get: Get) -> None:
    repository.write(".lfsconfig", f"[lfs]\n\turl = {server.url}/elsewhere/info/lfs\n")
    commit_large(repository, {"a.bin": LARGE})
    server.have(LARGE)
    assert (get(f"{server.url}/waves.git").root / "a.bin").read_bytes() == LARGE
    assert any("/elsewhere/info/lfs/objects/batch" in line for line in server.asked)


def test_a_server_does_not_lead_into_our_own_network(repository: Repository, server: Server, get: Get) -> None:
    commit_large(repository, {"a.bin": LARGE})
    server.have(LARGE)
    for target in ("https://10.0.0.1/x", "https://localhost/x", "http://example.org/x", "file:///etc/passwd"):
        server.link = lambda oid, target=target: {"href": target}  # type: ignore[misc]
        with pytest.raises(FetchError, match="not on the public Internet|is not encrypted|no web address"):
            get(f"{server.url}/waves.git")


def test_a_pointer_runs_nothing(repository: Repository, server: Server, get: Get, tmp_path: Path) -> None:
    commit_large(repository, {"a.bin": LARGE})
    text = pointer(LARGE).replace("oid", f"ext-0-{tmp_path}/evil sha256:{'0' * 64}\noid", 1)
    repository.write("a.bin", text)
    repository.commit()
    server.have(LARGE)
    with pytest.raises(FetchError, match="a.bin: its Git LFS pointer names programs to run"):
        get(f"{server.url}/waves.git")


@pytest.mark.parametrize(
    "text",
    [
        "version https://git-lfs.github.com/spec/v1\noid sha256:../../../../etc/passwd\nsize 1\n",
        "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize -1\n",
        "version https://git-lfs.github.com/spec/v1\noid md5:" + "a" * 32 + "\nsize 1\n",
        "version https://evil.example.org/spec/v1\noid sha256:" + "a" * 64 + "\nsize 1\n",
        "just text\n",
        "",
    ],
)
def test_what_is_no_pointer_stays_as_it_is(repository: Repository, server: Server, get: Get, text: str) -> None:
    commit_large(repository, {})
    repository.write("a.bin", text)
    repository.commit()
    assert (get(f"{server.url}/waves.git").root / "a.bin").read_text() == text
    assert not any("lfs" in line for line in server.asked)


def test_a_folder_has_no_attributes(repository: Repository, server: Server, get: Get) -> None:
    """A submodule's, which may have any name."""
    commit = repository.commit(a="1")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},lib/.gitattributes")
    repository.git("commit", "--quiet", "--message", "a submodule that nothing is said of")
    checkout = get(f"{server.url}/waves.git", source=SourceConfig(submodules=False))
    assert (checkout.root / "lib/.gitattributes").is_dir()


def test_a_link_is_not_a_pointer(repository: Repository, server: Server, get: Get, tmp_path: Path) -> None:
    outside = tmp_path / "outside.bin"
    outside.write_text(pointer(LARGE))
    commit_large(repository, {})
    (repository.path / "a.bin").symlink_to(outside)
    repository.commit()
    server.have(LARGE)
    assert (get(f"{server.url}/waves.git").root / "a.bin").is_symlink()
    assert outside.read_text() == pointer(LARGE)

"""Submodules, fetched with the repository; and those made to do harm."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from gitrepo import Listener, Repository

from hpcbinder.config import SourceConfig
from hpcbinder.errors import FetchError, HpcbinderError
from hpcbinder.model import Checkout
from hpcbinder.source import fetch
from hpcbinder.source.location import Remote
from hpcbinder.source.reach import Reach
from hpcbinder.source.submodules import submodule_remote


@pytest.fixture
def get(workdir: Path, listener: Listener) -> Get:
    return Get(workdir, listener)


class Get:
    def __init__(self, workdir: Path, listener: Listener) -> None:
        self.workdir, self.listener, self.count = workdir, listener, 0

    def __call__(
        self, spec: str, *, ref: str | None = None, subdir: str | None = None, source: SourceConfig | None = None
    ) -> Checkout:
        self.count += 1
        workdir = self.workdir / str(self.count)
        workdir.mkdir()
        return fetch(spec, ref=ref, subdir=subdir, workdir=workdir, reporter=self.listener, source=source)


def names(checkout: Checkout) -> set[str]:
    return {p.relative_to(checkout.root).as_posix() for p in checkout.root.rglob("*") if not p.is_dir()}


def with_gitlink(repository: Repository, path: str, commit: str, url: str, name: str = "x") -> str:
    """Commit a submodule as a file says it, without git's own checks."""
    repository.write(".gitmodules", f'[submodule "{name}"]\n\tpath = {path}\n\turl = {url}\n')
    repository.git("add", ".gitmodules")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
    repository.git("commit", "--quiet", "--message", "a submodule")
    return repository.git("rev-parse", "HEAD")


@pytest.fixture
def family(tmp_path: Path) -> tuple[Repository, Repository, Repository]:
    """A repository with a submodule with a submodule."""
    inner, middle, outer = (Repository(tmp_path / "srv" / name) for name in ("inner", "middle", "outer"))
    inner.commit(deep="1")
    inner.commit(deep="2", sub___file="x")
    middle.commit(code="m")
    middle.git("submodule", "add", "--quiet", "../inner", "libs/inner")
    middle.commit()
    outer.commit(top="o")
    outer.git("submodule", "add", "--quiet", middle.url, "vendor/middle")
    outer.commit()
    return inner, middle, outer


def test_submodules_are_there_and_theirs_too(family: tuple[Repository, Repository, Repository], get: Get) -> None:
    inner, middle, outer = family
    middle.commit(code="newer")  # the recorded commit counts, not the branch
    checkout = get(outer.url)
    assert names(checkout) == {
        ".gitmodules",
        "top",
        "vendor/middle/.gitmodules",
        "vendor/middle/code",
        "vendor/middle/libs/inner/deep",
        "vendor/middle/libs/inner/sub/file",
    }
    assert (checkout.root / "vendor/middle/code").read_text() == "m"
    assert checkout.tree == outer.git("rev-parse", "HEAD^{tree}")
    assert [p.name for p in checkout.root.parent.iterdir()] == ["source"]
    (note,) = checkout.notes
    assert (note.file, note.used) == (".gitmodules", True)
    assert note.reason == "2 fetched: vendor/middle, vendor/middle/libs/inner"


def test_a_commit_no_branch_of_the_submodule_stands_on(
    family: tuple[Repository, Repository, Repository], get: Get
) -> None:
    inner, middle, outer = family
    middle.git("checkout", "--quiet", "--orphan", "other")
    middle.git("branch", "-D", "main")
    middle.commit(other="1")
    subprocess.run(["git", "config", "--global", "protocol.version", "2"], check=True)
    assert "vendor/middle/code" in names(get(outer.url))


def test_a_subdirectory_brings_only_its_own(family: tuple[Repository, Repository, Repository], get: Get) -> None:
    inner, middle, outer = family
    outer.commit(plain___a="1")
    checkout = get(outer.url, subdir="plain")
    assert names(checkout) == {"a"}
    assert not any("submodule" in line for line in get.listener.lines)
    inside = get(outer.url, subdir="vendor/middle/libs")
    assert names(inside) == {"inner/deep", "inner/sub/file"}
    assert inside.subdir == "vendor/middle/libs"
    assert get(outer.url, subdir="vendor/middle/libs/inner/sub").tree == inner.git("rev-parse", "HEAD:sub")


def test_submodules_can_be_left_and_the_tree_is_another_then(
    family: tuple[Repository, Repository, Repository], get: Get
) -> None:
    *_, outer = family
    left = get(outer.url, source=SourceConfig(submodules="leave"))
    assert names(left) == {".gitmodules", "top"}
    assert left.tree != get(outer.url).tree
    assert left.tree == get(outer.url, source=SourceConfig(submodules="leave")).tree
    assert [(note.file, note.used) for note in left.notes] == [(".gitmodules", False)]
    assert any("submodules are left: their folders are empty" in line for line in get.listener.lines)
    with pytest.raises(FetchError, match="it is a submodule, which source.submodules leaves out"):
        get(outer.url, subdir="vendor/middle", source=SourceConfig(submodules="leave"))


def test_the_plan_says_what_was_fetched_and_what_not(
    family: tuple[Repository, Repository, Repository], get: Get
) -> None:
    from hpcbinder.plan import explain, load_packs, make_plan
    from hpcbinder.plan.manifest import rebuild_command

    *_, outer = family
    texts, ids, again = [], [], []
    for source in (SourceConfig(), SourceConfig(submodules="leave")):
        plan = make_plan(get(outer.url, source=source), packs=load_packs(()), suite="bookworm", architecture="amd64")
        texts.append(explain(plan))
        ids.append(plan.id)
        again.append(rebuild_command(plan))
    assert "2 fetched: vendor/middle, vendor/middle/libs/inner" in texts[0]
    assert "submodules are left" in texts[1]
    assert ids[0] != ids[1]
    assert ["--no-submodules" in command for command in again] == [False, True]


def test_a_commit_that_gitmodules_does_not_know_is_an_empty_folder(repository: Repository, get: Get) -> None:
    """Somebody added a repository inside theirs; a clone has an empty folder there, too."""
    repository.commit(a="1")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},stray")
    repository.git("commit", "--quiet", "-m", "a slip")
    checkout = get(repository.url.replace(" ", "%20"))
    assert (names(checkout), list((checkout.root / "stray").iterdir())) == ({"a"}, [])


def test_a_submodule_that_cannot_be_had_says_which_and_how_to_go_without(
    repository: Repository, get: Get, tmp_path: Path
) -> None:
    url = repository.url.replace(" ", "%20")
    with_gitlink(repository, "lib", "1" * 40, f"file://{tmp_path}/gone")
    with pytest.raises(FetchError) as caught:
        get(url)
    assert str(caught.value).startswith(f"{url}: submodule 'lib': file://{tmp_path}/gone: no such repository: ")
    assert str(caught.value).endswith("(--no-submodules leaves the folders of submodules empty)")
    other = Repository(tmp_path / "other")
    other.commit(a="1")
    with_gitlink(repository, "lib", "1" * 40, other.url)
    with pytest.raises(FetchError, match=f"submodule 'lib': .*no commit {'1' * 40} in the repository"):
        get(url)


BASE = Remote("https://git.example.org/group/sub/repo.git", "repo", "ann", "geheim")


@pytest.mark.parametrize(
    ("parent", "url", "expected"),
    [
        (BASE.url, "../lib.git", "https://git.example.org/group/sub/lib.git"),
        (BASE.url, "../../other/lib", "https://git.example.org/group/other/lib"),
        (BASE.url, "./inner", "https://git.example.org/group/sub/repo.git/inner"),
        (BASE.url + "/", "../lib/", "https://git.example.org/group/sub/lib"),
        ("git@git.example.org:group/repo", "../lib", "git@git.example.org:group/lib"),
        ("git@git.example.org:repo", "../lib", "git@git.example.org:lib"),
        ("git@git.example.org:/srv/repo", "../lib", "git@git.example.org:/srv/lib"),
        ("ssh://git@git.example.org:2222/group/repo", "../lib", "ssh://git@git.example.org:2222/group/lib"),
        ("file:///srv/a/repo", "../lib", "file:///srv/a/lib"),
        ("file:///srv/a/repo", "/srv/a/lib", "file:///srv/a/lib"),
        (BASE.url, "https://github.com/org/lib", "https://github.com/org/lib"),
        (BASE.url, "git@github.com:org/lib.git", "git@github.com:org/lib.git"),
        (BASE.url, "http://git.example.org/lib", "http://git.example.org/lib"),
    ],
)
def test_where_a_submodule_is(parent: str, url: str, expected: str) -> None:
    reach = Reach({"git.example.org"})
    assert submodule_remote(Remote(parent, "repo"), url, reach, proxied=True).url == expected


def test_a_local_repository_names_none_but_those_beside_it(tmp_path: Path) -> None:
    """Else a stranger's `.gitmodules` would bring any repository of the person's into an image (CVE-2022-39253)."""
    for name in ("strangers/repo", "private"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "strangers" / "link").symlink_to(tmp_path / "private")
    parent = Remote(f"file://{tmp_path}/strangers/repo", "repo")
    for url in (f"file://{tmp_path}/private", f"{tmp_path}/private", "../../private", "../link"):
        with pytest.raises(FetchError, match="is not in the folder that holds its parent"):
            submodule_remote(parent, url, Reach(set()))


def test_a_login_is_only_for_the_host_it_was_given_for() -> None:
    reach = Reach({"git.example.org"})
    assert submodule_remote(BASE, "../lib", reach).password == "geheim"
    assert submodule_remote(BASE, "https://git.example.org/x/y", reach).username == "ann"
    for url in ("https://github.com/x/y", "http://git.example.org/x/y", "https://git.example.org:8443/x/y"):
        assert submodule_remote(BASE, url, reach, proxied=True).username is None


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("../../../../evil.example.org/x", "leads above its parent's"),
        ("file:///etc", "is a folder of this machine"),
        ("/etc", "is a folder of this machine"),
        ("etc/x", "is not a source"),
        ("ext::sh -c touch% owned", "is not a repository's URL"),
        ("-u./payload", "is not a repository's URL"),
        ("--upload-pack=touch owned", "is not a repository's URL"),
        ("ssh://-oProxyCommand=touch%20owned/x", "is not a repository's URL"),
        ("-oProxyCommand=touch:x", "is not a repository's URL"),
        ("https://example.org/x\n[core]", "is not a repository's URL"),
        ("https://127.0.0.1/x", "is not on the public Internet"),
        ("https://169.254.169.254/latest/meta-data", "is not on the public Internet"),
        ("https://[::1]/x", "is not on the public Internet"),
        ("https://localhost/x", "is not on the public Internet"),
        ("git@10.1.2.3:x/y", "is not on the public Internet"),
        ("ssh://git@192.168.0.1/x", "is not on the public Internet"),
        ("https://0x7f000001/x", "is not on the public Internet"),
        ("http://other.example.org/x", "is not encrypted"),
        ("git://other.example.org/x", "is not encrypted"),
        ("10.5281/zenodo.1", "is not a source"),
    ],
)
def test_a_url_that_may_not_be(url: str, message: str) -> None:
    with pytest.raises(HpcbinderError, match=message) as caught:
        submodule_remote(BASE, url, Reach({"git.example.org"}), proxied=True)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("scheme", ["git", "http"])
def test_what_a_forge_has_under_https_too_is_asked_for_there(scheme: str) -> None:
    remote = submodule_remote(BASE, f"{scheme}://github.com/x/y.git", Reach({"git.example.org"}), proxied=True)
    assert remote.url == "https://github.com/x/y.git"


def test_a_site_names_the_hosts_inside() -> None:
    reach = Reach({"github.com"}, ["*.site.example", "10.1.*"])
    for url in ("https://git.site.example/x/y", "http://git.site.example/x/y", "git@10.1.2.3:x/y"):
        assert submodule_remote(BASE, url, reach, proxied=True).url == url


def test_a_name_that_stands_for_an_inner_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver is a mock: a test cannot have a name server of its own."""

    def resolve(host: str, *_: object, **__: object) -> list[object]:
        return [(2, 1, 6, "", ("10.0.0.7" if host == "inner.example.org" else "93.184.216.34", 0))]

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    assert submodule_remote(BASE, "https://outer.example.org/x", Reach(())).url == "https://outer.example.org/x"
    for url in ("https://inner.example.org/x", "git@inner.example.org:x"):
        with pytest.raises(FetchError, match="inner.example.org is not on the public Internet"):
            submodule_remote(BASE, url, Reach(()))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "canary"
    program = tmp_path / "evil"
    program.write_text(f"#!/bin/sh\necho run $* >> {path}\n")
    program.chmod(0o755)
    return path


@pytest.mark.parametrize("name", ["../../../hooks", "x/../../y", "-x", ""])
def test_neither_name_nor_update_nor_hooks_of_a_submodule_do_anything(
    repository: Repository, get: Get, tmp_path: Path, canary: Path, name: str
) -> None:
    """CVE-2018-11235 (names that lead out of .git/modules), CVE-2019-19604 (`update = !command`)."""
    other = Repository(tmp_path / "other")
    (other.path / ".git" / "hooks").mkdir(exist_ok=True)
    for hook in ("post-checkout", "post-index-change", "reference-transaction"):
        (other.path / ".git" / "hooks" / hook).symlink_to(canary.with_name("evil"))
    other.git("config", "core.hooksPath", "/dev/null")
    commit = other.commit(hooks___post_checkout="x", **{"__gitattributes": "* filter=evil\n"})
    evil = canary.with_name("evil")
    with_gitlink(repository, "lib", commit, other.url, name)
    repository.write(
        ".gitmodules",
        f'[submodule "{name}"]\n\tpath = lib\n\turl = {other.url}\n\tupdate = !{evil}\n'
        f"[core]\n\tfsmonitor = {evil}\n\thooksPath = {tmp_path}\n[include]\n\tpath = {tmp_path}/evil\n"
        f'[filter "evil"]\n\tsmudge = {evil}\n',
    )
    repository.git("add", ".gitmodules")
    repository.git("commit", "--quiet", "-m", "worse")
    before = sorted(p.name for p in tmp_path.iterdir())
    checkout = get(repository.url.replace(" ", "%20"))
    assert names(checkout) == {".gitmodules", "lib/.gitattributes", "lib/hooks/post_checkout"}
    assert not canary.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_link_in_the_place_of_gitmodules_is_not_followed(repository: Repository, get: Get, tmp_path: Path) -> None:
    """CVE-2020-26233's kin: what git would read is not what the repository shows."""
    with_gitlink(repository, "lib", "1" * 40, "file:///x")
    (tmp_path / "mine").write_text(f'[submodule "x"]\n\tpath = lib\n\turl = file://{tmp_path}/secret\n')
    (repository.path / ".gitmodules").unlink()
    (repository.path / ".gitmodules").symlink_to(tmp_path / "mine")
    repository.git("add", ".gitmodules")
    repository.git("commit", "--quiet", "-m", "a link")
    # git itself refuses to write it, and would a git not, we would not read it
    with pytest.raises(FetchError, match="invalid path '.gitmodules'|.gitmodules: is not a plain file"):
        get(repository.url.replace(" ", "%20"))


@pytest.mark.parametrize("path", ["../out", "/tmp/out", "a/../../out", ".git/x", ""])
def test_a_path_that_leads_elsewhere_is_none_of_the_repositorys(
    repository: Repository, get: Get, tmp_path: Path, path: str
) -> None:
    other = Repository(tmp_path / "other")
    other.commit(a="1")
    repository.commit(x="1", **{"__gitmodules": f'[submodule "x"]\n\tpath = {path}\n\turl = {other.url}\n'})
    checkout = get(repository.url.replace(" ", "%20"))
    assert names(checkout) == {".gitmodules", "x"}


def test_a_link_on_the_way_to_a_submodule_is_not_followed(repository: Repository, get: Get, tmp_path: Path) -> None:
    """CVE-2024-32002: a tree with a link and a submodule behind it, which a checkout would write through."""
    other, outside = Repository(tmp_path / "other"), tmp_path / "outside"
    outside.mkdir()
    commit = other.commit(owned="1")
    with_gitlink(repository, "real/lib", commit, other.url)
    target = repository.git("hash-object", "-w", "--stdin", stdin=str(outside).encode())
    modules = repository.git(
        "hash-object", "-w", "--stdin", stdin=f'[submodule "x"]\n\tpath = a/lib\n\turl = {other.url}\n'.encode()
    )
    inner = repository.git("mktree", "--missing", "-z", stdin=f"160000 commit {commit}\tlib\0".encode())
    tree = repository.git(
        "mktree",
        "--missing",
        "-z",
        stdin="".join(
            f"{line}\0"
            for line in (f"100644 blob {modules}\t.gitmodules", f"120000 blob {target}\ta", f"040000 tree {inner}\ta")
        ).encode(),
    )
    repository.git("branch", "evil", repository.git("commit-tree", tree, "-m", "hostile"))
    try:
        get(repository.url.replace(" ", "%20"), ref="evil")
    except FetchError as error:
        assert len(str(error).splitlines()) == 1
    assert list(outside.iterdir()) == []


def test_a_submodule_in_a_place_that_is_taken(repository: Repository, tmp_path: Path, workdir: Path) -> None:
    from hpcbinder.source.submodules import _empty_folder

    (workdir / "link").symlink_to(tmp_path)
    (workdir / "full").mkdir()
    (workdir / "full" / "x").touch()
    for path in ("link", "link/lib", "full"):
        with pytest.raises(FetchError, match="something else is at its path"):
            _empty_folder(workdir, path)


def test_submodules_without_an_end(repository: Repository, get: Get, tmp_path: Path) -> None:
    below = Repository(tmp_path / "level0")
    commit = below.commit(a="1")
    for level in range(1, 13):
        above = Repository(tmp_path / f"level{level}")
        commit = with_gitlink(above, "d", commit, f"file://{tmp_path}/level{level - 1}")
    with pytest.raises(FetchError, match="submodules nest deeper than 10"):
        get(f"file://{tmp_path}/level12")


def test_more_submodules_than_anybody_has(repository: Repository, get: Get, tmp_path: Path) -> None:
    from hpcbinder.source import submodules

    other = Repository(tmp_path / "other")
    commit = other.commit(a="1")
    lines = ""
    for number in range(4):
        lines += f'[submodule "{number}"]\n\tpath = d{number}\n\turl = {other.url}\n'
        repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},d{number}")
    repository.write(".gitmodules", lines)
    repository.git("add", ".gitmodules")
    repository.git("commit", "--quiet", "-m", "many")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submodules, "_MOST", 3)
        with pytest.raises(FetchError, match="more than 3 submodules"):
            get(repository.url.replace(" ", "%20"))
    assert len(names(get(repository.url.replace(" ", "%20")))) == 5

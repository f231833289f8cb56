"""What counts as a source, a ref and a subdirectory, and what is refused before git is asked."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbinder.errors import UsageError
from hpcbinder.source.location import Folder, Remote, parse_ref, parse_source, parse_subdir, slug
from hpcbinder.source.places import Dataset


def safe(message: str) -> bool:
    """Whether a message is one line that does nothing to a terminal."""
    return not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in message)


@pytest.mark.parametrize(
    ("spec", "url", "name"),
    [
        ("https://github.com/minrk/ligo-binder", "https://github.com/minrk/ligo-binder", "ligo-binder"),
        ("https://example.org/a/b.git/", "https://example.org/a/b.git/", "b"),
        ("http://127.0.0.1:8080/x", "http://127.0.0.1:8080/x", "x"),
        ("HTTPS://example.org/a", "https://example.org/a", "a"),
        ("https://[::1]:80/a", "https://[::1]:80/a", "a"),
        ("ssh://git@host.example.org:22/group/sub/x.git", "ssh://git@host.example.org:22/group/sub/x.git", "x"),
        ("git://localhost/x", "git://localhost/x", "x"),
        ("file:///srv/git/x.git", "file:///srv/git/x.git", "x"),
        ("file://localhost/srv/My%20Repo", "file:///srv/My%20Repo", "My Repo"),
        ("git@github.com:org/repo.git", "git@github.com:org/repo.git", "repo"),
        ("myhost:repo", "myhost:repo", "repo"),
        ("gh:org/repo", "https://github.com/org/repo", "repo"),
        ("gh:org/repo.name.git", "https://github.com/org/repo.name", "repo.name"),
        ("gl:group/repo", "https://gitlab.com/group/repo", "repo"),
        ("gl:group/sub/group/repo.git", "https://gitlab.com/group/sub/group/repo", "repo"),
        ("https://github.com/org/repo?tab=readme-ov-file#installation", "https://github.com/org/repo", "repo"),
        ("https://github.com/org/repo/", "https://github.com/org/repo/", "repo"),
        ("https://gitlab.com/group/sub/repo?ref_type=heads", "https://gitlab.com/group/sub/repo", "repo"),
    ],
)
def test_repositories(spec: str, url: str, name: str) -> None:
    assert parse_source(spec) == Remote(url=url, name=name)


def test_a_login_leaves_the_url_and_is_never_shown() -> None:
    remote = parse_source("https://ann:ge%40heim@example.org/a")
    assert isinstance(remote, Remote)
    assert (remote.url, remote.username, remote.password) == ("https://example.org/a", "ann", "ge@heim")
    assert "heim" not in repr(remote)
    token = parse_source("https://ghp_token@github.com/a/b")
    assert isinstance(token, Remote)
    assert (token.url, token.username, token.password) == ("https://github.com/a/b", "ghp_token", None)


def test_a_folder_is_taken_and_a_bare_repository_is_a_repository(tmp_path: Path) -> None:
    assert parse_source(str(tmp_path)) == Folder(tmp_path)
    odd = tmp_path / "a:b"
    odd.mkdir()
    assert parse_source(str(odd)) == Folder(odd)
    bare = tmp_path / "my x.git"
    (bare / "objects").mkdir(parents=True)
    (bare / "refs").mkdir()
    (bare / "HEAD").write_text("ref: refs/heads/main\n")
    assert parse_source(str(bare)) == Remote(url=f"file://{tmp_path}/my%20x.git", name="my x")


@pytest.mark.parametrize(
    ("spec", "archive", "source", "name"),
    [
        ("10.5281/zenodo.123", "doi", "https://doi.org/10.5281/zenodo.123", "zenodo.123"),
        ("DOI: 10.7910/DVN/ABC", "doi", "https://doi.org/10.7910/DVN/ABC", "DVN/ABC"),
        ("http://dx.doi.org/10.4211/hs.1", "doi", "https://doi.org/10.4211/hs.1", "hs.1"),
        ("https://zenodo.org/record/12/files/x?download=1", "zenodo", "https://zenodo.org/records/12", "zenodo 12"),
        ("https://data.caltech.edu/records/d1-x/", "zenodo", "https://data.caltech.edu/records/d1-x", "caltech d1-x"),
        (
            "https://figshare.com/articles/code/2019_x/12/3",
            "figshare",
            "https://figshare.com/articles/12/3",
            "figshare 12",
        ),
        ("https://d.example/file.xhtml?x=1&persistentId=doi%3A10.1%2FA", "dataverse", None, "A"),
        ("https://d.example:8443/api/access/datafile/5?x", "dataverse", None, "d.example 5"),
        ("https://demo.ckan.org/data/dataset/x-1/history/ab-1", "ckan", None, "x-1"),
        (f"swh:1:dir:{'a' * 40};path=/x", "swh", f"swh:1:dir:{'a' * 40}", "swh aaaaaaaaaaaa"),
        (f"https://archive.softwareheritage.org/browse/swh:1:rev:{'a' * 40}/", "swh", f"swh:1:rev:{'a' * 40}", None),
    ],
)
def test_datasets(spec: str, archive: str, source: str | None, name: str | None) -> None:
    found = parse_source(spec, ckan=("demo.ckan.org",))
    assert isinstance(found, Dataset)
    assert found.archive == archive
    assert source in (None, found.source)
    assert name in (None, found.name)
    again = parse_source(found.source, ckan=("demo.ckan.org",))
    assert isinstance(again, Dataset) and (again.spec, again.source) == (found.spec, found.source)


def test_an_address_that_only_looks_like_one_is_a_repositorys() -> None:
    for url in (
        "https://example.org/dataset/x",
        "https://notzenodo.org/records/1",
        "https://zenodo.org.example.net/records/1",
        "https://example.org/zenodo.org/records/1",
        "https://github.com/doi/10.5281",
    ):
        assert isinstance(parse_source(url), Remote), url


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "the source is empty"),
        ("  ", "the source is empty"),
        ("-x", "begins like an option"),
        ("--upload-pack=touch /tmp/x", "begins like an option"),
        ("ext::sh -c touch% /tmp/x", "names a git helper program"),
        ("fd::17", "names a git helper program"),
        ("transport::https://example.org/x", "names a git helper program"),
        ("ext://sh", "no such kind of source"),
        ("javascript://x", "no such kind of source"),
        ("https://example.org/a\0b", "control character"),
        ("https://example.org/a\nb", "control character"),
        ("https://example.org/\x1b[31m", "control character"),
        ("https://-host/x", "is not a repository's URL"),
        ("https://host:123456/x", "is not a repository's URL"),
        ("https://host:99999/x", "no such port"),
        ("https://example.org", "is not a repository's URL"),
        ("https://example.org/a?b", "leave out what follows"),
        ("https://exa mple.org/a", "is not a URL"),
        ("https://a:b\\c@example.org/a", "is not a URL"),
        ("https://ann:x%0ay@example.org/a", "a control character in the login"),
        ("ssh://-oProxyCommand=touch%20x/a", "is not a repository's URL"),
        ("ssh://-oProxyCommand=x@host/a", "takes a plain user name"),
        ("ssh://ann:geheim@host/a", "takes a plain user name"),
        ("ssh://host/-x", "the path begins like an option"),
        ("-oProxyCommand=x:a", "begins like an option"),
        ("host:-x", "is not a source"),
        ("-u@host:x", "begins like an option"),
        ("a@-host:x", "is not a source"),
        ("file://server/share", "a file URL names no host"),
        ("gh:org", "is not gh:org/repo"),
        ("gh:org/repo/tree/main", "is not gh:org/repo"),
        ("gh:-org/repo", "is not gh:org/repo"),
        ("gl:repo", "is not gl:group/repo"),
        ("gl:-group/repo", "is not gl:group/repo"),
        ("gl:group/../repo", "is not gl:group/repo"),
        ("gl:group//repo", "is not gl:group/repo"),
        ("https://github.com/org/repo/pull/5", "is a page without files: give https://github.com/org/repo"),
        ("https://github.com/org/repo/tree", "is a page without files: give https://github.com/org/repo"),
        (
            "https://ann:geheim@gitlab.com/g/repo/-/issues/5",
            "is a page without files: give https://***@gitlab.com/g/repo",
        ),
        ("./no-such-folder", "no folder './no-such-folder'"),
        ("github.com/org/repo", "write https://github.com/org/repo"),
        ("/dev/null", "'/dev/null' is a file"),
        ("x" * 5000, "no folder 'xxx"),
        ("x/" * 5000, "no folder 'x/x"),
        ("~/nothing here", "no folder '~/nothing here'"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(spec: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_source(spec)
    assert message in str(caught.value)
    assert safe(str(caught.value))
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("ref", ["main", "feature/x", "v1.0", "HEAD", "refs/pull/1/head", "a" * 40, "über", "a@b"])
def test_refs(ref: str) -> None:
    assert parse_ref(ref) == ref


@pytest.mark.parametrize(
    "ref",
    ["", "-x", "--upload-pack=touch x", "a b", "a..b", "HEAD~1", "HEAD^", "a:b", "+a:b", "a?", "a*", "a[b", "a\\b"]
    + ["@", "a@{1}", "/a", "a/", "a//b", ".a", "a/.b", "a.lock", "a.", "a\0b", "a\nb", "a\x7f", "a" * 300],
)
def test_what_no_ref_can_be_is_refused(ref: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_ref(ref)
    assert safe(str(caught.value))


@pytest.mark.parametrize(
    ("subdir", "clean"), [("", ""), (".", ""), ("a/b", "a/b"), ("./a//b/", "a/b"), ("a b", "a b"), ("...", "...")]
)
def test_subdirectories(subdir: str, clean: str) -> None:
    assert parse_subdir(subdir) == clean


@pytest.mark.parametrize("subdir", ["..", "../..", "a/../..", "/etc", "a/../b", ".git", "a/.GIT/hooks", "a\0b", "a\nb"])
def test_subdirectories_that_lead_elsewhere_are_refused(subdir: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_subdir(subdir)
    assert safe(str(caught.value))


@given(st.lists(st.text(), max_size=3))
def test_a_slug_can_always_be_part_of_an_id(words: list[str]) -> None:
    text = slug(*words)
    assert 1 <= len(text) <= 40
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert text[0] != "-"


ANYTHING = st.text() | st.text(st.characters(), max_size=8) | st.text("-:/@.~gh[]ext%", max_size=20)


@given(ANYTHING)
def test_any_text_is_a_source_or_one_clear_line(text: str) -> None:
    try:
        location = parse_source(text)
    except UsageError as error:
        assert safe(str(error))
    else:
        assert not isinstance(location, Remote) or not location.url.startswith("-")


@given(ANYTHING)
def test_any_text_is_a_ref_or_one_clear_line(text: str) -> None:
    try:
        assert not parse_ref(text).startswith("-")
    except UsageError as error:
        assert safe(str(error))

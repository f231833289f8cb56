"""The parts of installing Debian packages that need neither Debian's mirror nor a runtime."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from checkouts import checkout_of, plan_of
from recorded_index import RecordedResolver

from hpcbinder.apt import Archive, Deb, NoSuchPackage, Resolver, Sets, Target, fetch_debs, narrow
from hpcbinder.apt.fetching import _read
from hpcbinder.builders.assembling.system import located
from hpcbinder.config import SiteConfig
from hpcbinder.errors import BuildError, FetchError

SOURCE = ("http://deb.debian.org/debian", "bookworm")
CONTENT = b"a package"
SUM = hashlib.sha256(CONTENT).hexdigest()


def deb(name: str = "tree", **changed: Any) -> Deb:
    path = f"pool/main/t/{name}/{name}_2.1%2bb1_amd64.deb"
    file = f"{name}_2.1%2bb1_amd64.deb"
    values = {"version": "2.1+b1", "architecture": "amd64", "source": SOURCE, "path": path, "file": file}
    return Deb(name, **{**values, "size": len(CONTENT), "sha256": SUM, **changed})


@pytest.fixture
def mirror() -> Iterator[SimpleNamespace]:
    """A server that answers with `.content`; `.asked` is what it was asked for, `.logins` with which login."""
    told = SimpleNamespace(content=CONTENT, status=200, asked=[], logins=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append(self.path)
            told.logins.append(self.headers.get("Authorization"))
            self.send_response(told.status)
            self.end_headers()
            self.wfile.write(told.content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    told.url = f"http://me:pass-word@127.0.0.1:{server.server_port}/some/debian"
    yield told
    server.shutdown()
    server.server_close()


def archive(url: str) -> Archive:
    return Archive(SiteConfig(apt_mirror=url), "bookworm")


def test_packages_come_from_the_sites_mirror(mirror: SimpleNamespace, tmp_path: Path) -> None:
    fetch_debs([deb()], archive(mirror.url), tmp_path)
    assert (tmp_path / "tree_2.1%2bb1_amd64.deb").read_bytes() == CONTENT
    # The name is quoted already, as apt says it.
    assert mirror.asked == ["/some/debian/pool/main/t/tree/tree_2.1%2Bb1_amd64.deb"]
    assert mirror.logins == ["Basic bWU6cGFzcy13b3Jk"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"another..", "tree: is not the file that Debian's signed lists name"),
        (CONTENT + b"!", "tree: the server sends more than 9 bytes"),
        (b"", "tree: is not the file that Debian's signed lists name"),
    ],
)
def test_a_package_that_is_another_one(mirror: SimpleNamespace, tmp_path: Path, content: bytes, message: str) -> None:
    mirror.content = content
    with pytest.raises(FetchError) as caught:
        fetch_debs([deb()], archive(mirror.url), tmp_path)
    assert caught.value.message == message
    assert "pass-word" not in str(caught.value)


def test_a_mirror_that_does_not_have_it(mirror: SimpleNamespace, tmp_path: Path) -> None:
    mirror.status = 404
    with pytest.raises(FetchError) as caught:
        archive(mirror.url).read(SOURCE, "dists/bookworm/InRelease", 1 << 20)
    where = f"{mirror.url.replace('me:pass-word@', '')}/dists/bookworm/InRelease"
    hint = "the Debian mirror cannot be used: see site.apt_mirror and site.http_proxy"
    assert str(caught.value).replace("***@", "") == f"{where}: is not there ({hint})"


def resolver(stdout: str, stderr: str = "", code: int = 0, *, folder: Path) -> Resolver:
    """One whose apt says this; which only looks like `Programs`."""
    done = SimpleNamespace(stdout=stdout.encode(), stderr=stderr.encode(), returncode=code)
    programs = SimpleNamespace(root=folder, run=lambda *_: done)
    return Resolver(cast(Any, programs), Target("bookworm", "amd64"), folder)


@pytest.mark.parametrize(
    "line",
    [
        f"'http://example.org/debian/pool/tree_2_amd64.deb' tree_2_amd64.deb 5 SHA256:{SUM}",
        f"'{SOURCE[0]}/pool/../../tree_2_amd64.deb' tree_2_amd64.deb 5 SHA256:{SUM}",
        f"'{SOURCE[0]}/pool/tree_2_amd64.deb' ../tree_2_amd64.deb 5 SHA256:{SUM}",
        f"'{SOURCE[0]}/pool/tree_2_amd64.deb' -tree_2_amd64.deb 5 SHA256:{SUM}",
        f"'{SOURCE[0]}/pool/tree_2_amd64.deb' tree_2_amd64.deb 99999999999999 SHA256:{SUM}",
        f"'{SOURCE[0]}/pool/tree_2_amd64.deb' tree_2_amd64.deb 5 MD5Sum:{SUM[:32]}",
    ],
)
def test_what_apt_says_is_believed_only_so_far(tmp_path: Path, line: str) -> None:
    with pytest.raises(BuildError, match="apt names a package that nobody can fetch"):
        resolver(f"Reading...\n{line}\n", folder=tmp_path).resolve(["tree"], tmp_path / "lists")


def test_versions_and_names_are_as_debian_has_them(tmp_path: Path) -> None:
    uri = f"{SOURCE[0]}/pool/main/g/gcc/g++_12.2%2bb1_amd64.deb"
    (found,) = resolver(
        f"NEW packages:\n  g++\n'{uri}' g++_4%3a12.2+b1_amd64.deb 5 SHA256:{SUM}\n", folder=tmp_path
    ).resolve(["g++"], tmp_path / "lists")
    assert (found.name, found.version, found.architecture) == ("g++", "4:12.2+b1", "amd64")
    assert (found.source, found.path) == (SOURCE, "pool/main/g/gcc/g++_12.2%2bb1_amd64.deb")


def test_a_version_that_is_not_there(tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "x_Packages").write_text("Package: tree\nVersion: 2.1.0-1\n\nPackage: hello\nVersion: 3\n")
    with pytest.raises(NoSuchPackage) as caught:
        resolver("", "E: Version '9' for 'tree' was not found\n", 100, folder=tmp_path).resolve(["tree=9"], lists)
    assert str(caught.value) == "Debian bookworm has no version 9 of tree (it has 2.1.0-1)"
    assert caught.value.word == "tree=9"


def test_packages_that_do_not_go_together(tmp_path: Path) -> None:
    said = "The following packages have unmet dependencies:\n nullmailer : Conflicts: mail-transport-agent\n"
    said += " postfix : Conflicts: mail-transport-agent\n"
    held = "E: Unable to correct problems, you have held broken packages.\n"
    with pytest.raises(BuildError) as caught:
        resolver(said, held, 100, folder=tmp_path).resolve(["nullmailer", "postfix"], tmp_path / "lists")
    assert str(caught.value) == (
        "apt cannot install what is asked for: nullmailer : Conflicts: mail-transport-agent; postfix : Conflicts: "
        "mail-transport-agent (packages that conflict cannot be in one image)"
    )


def test_an_error_has_the_line_that_asks(tmp_path: Path) -> None:
    (tmp_path / "binder").mkdir()
    (tmp_path / "binder" / "apt.txt").write_text("# trees\nhello\n\ntree  plocat # locat\n")
    plan, checkout = plan_of(tmp_path, name="some", resolver=RecordedResolver()), checkout_of(tmp_path, name="some")
    assert located(NoSuchPackage("no", "plocat"), plan, checkout).where == "binder/apt.txt:4"
    # A buildpack wanted that one.
    assert located(NoSuchPackage("no", "locat"), plan, checkout).where is None


SECURITY = ("http://deb.debian.org/debian-security", "bookworm-security")
RELEASE = f"""\
Origin: Debian
Codename: bookworm-security
Valid-Until: Fri, 27 Nov 2065 00:12:41 UTC
Acquire-By-Hash: yes
MD5Sum:
 {SUM[:32]} 99 main/binary-amd64/Packages.xz
SHA256:
 {SUM} 1234 main/binary-amd64/Packages.xz
 {SUM} 9 main/binary-arm64/Packages.gz
"""


def test_what_is_signed_is_read() -> None:
    found = _read(RELEASE.encode(), SECURITY, "bookworm", "amd64")
    assert (found.sha256, found.size, found.by_hash) == (SUM, 1234, True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2065", "2019", "the list of bookworm-security that the mirror has was valid until Fri, 27 Nov 2019"),
        ("Codename: bookworm", "Codename: bullseye", "the mirror has another release where bookworm-security belongs"),
        # Old lists of the release itself, which are valid for ever, would hide all fixes.
        ("bookworm-security", "bookworm", "the mirror has another release where bookworm-security belongs"),
        ("-amd64/Packages.xz", "-i386/Packages.xz", "bookworm-security has no packages for amd64"),
        ("SHA256:", "Other:", "bookworm-security has no packages for amd64"),
    ],
)
def test_a_list_that_cannot_be_meant(old: str, new: str, message: str) -> None:
    with pytest.raises(FetchError) as caught:
        _read(RELEASE.replace(old, new).encode(), SECURITY, "bookworm", "amd64")
    assert caught.value.message.startswith(message)


def test_lists_of_nothing_but_what_is_wanted(tmp_path: Path) -> None:
    lists, out = tmp_path / "lists", tmp_path / "out"
    (lists / "partial").mkdir(parents=True)
    (lists / "a_InRelease").write_text("signed")
    tree = "Package: tree\nFilename: pool/main/t/tree/tree_2.1+b1_amd64.deb\nSize: 9\n"
    (lists / "a_Packages").write_text(f"Package: bush\nFilename: pool/bush.deb\n\n{tree}\nPackage: x\nFilename: y\n\n")
    narrow(lists, [deb()], out)
    assert (out / "a_Packages").read_text() == f"{tree}\n"
    assert (out / "a_InRelease").read_text() == "signed"


def test_a_source_that_is_none_of_debians_is_not_asked(tmp_path: Path) -> None:
    """As a record of a store may say that others write to."""
    archive = Archive(SiteConfig(), "bookworm")
    with pytest.raises(FetchError, match="is not of Debian's archives"):
        archive.save(("http://evil.example", "bookworm"), "pool/x.deb", tmp_path / "x", sha256=SUM, size=1)


def test_sets_are_remembered_and_shared(tmp_path: Path) -> None:
    mine, site = tmp_path / "mine", tmp_path / "site"
    assert Sets(mine, [site]).empty
    Sets(site).keep_resolved("ab" * 32, "lists", [deb(), deb("hello")])
    Sets(site).keep_installed("ab" * 32, "sha256:" + "1" * 64, [deb()])
    found = Sets(mine, [site])
    assert not found.empty
    assert found.resolved("ab" * 32, "lists") == [deb(), deb("hello")]
    assert found.resolved("ab" * 32, "other lists") is None
    # Its words become paths: a record of somebody else's store is looked at as closely as what apt says.
    for bad in ({"file": "/home/ann/.bashrc"}, {"path": "../x"}, {"size": -1}, {"sha256": "x"}, {"version": "3"}):
        Sets(site).keep_resolved("ab" * 32, "bad", [deb(), deb("hello", **bad)])
        assert found.resolved("ab" * 32, "bad") is None
    (one,) = found.installed("ab" * 32)
    assert (one.identity, one.packages) == ("sha256:" + "1" * 64, (("tree", "2.1+b1"),))
    assert found.installed("cd" * 32) == []
    # The newest first; what is damaged is none.
    record = {"identity": "sha256:" + "2" * 64, "made": 4_000_000_000, "packages": []}
    (mine / "sets").mkdir(parents=True)
    for number, text in enumerate((record, {**record, "identity": "sha256:../3"}, {**record, "made": "x"}, [], {})):
        (mine / "sets" / f"{'ab' * 32}-{number}.json").write_text(json.dumps(text))
    (mine / "sets" / f"{'ab' * 32}-damaged.json").write_text("{")
    assert [each.identity for each in found.installed("ab" * 32)] == ["sha256:" + "2" * 64, "sha256:" + "1" * 64]

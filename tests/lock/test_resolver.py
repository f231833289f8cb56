"""Finding versions with the real uv, against an index of packages made for each test."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from package_index import PackageIndex

from hpcbinder.config import SiteConfig
from hpcbinder.errors import DetectError, FetchError, OldMetadataError
from hpcbinder.lock import Resolver
from hpcbinder.lock.uv import Uv
from hpcbinder.model import Lock, Wanted


class Said:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        self.lines.append(message)

    def log(self, phase: str, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def said() -> Said:
    return Said()


Resolve = Callable[..., Lock]


@pytest.fixture
def resolve(package_index: PackageIndex, tmp_path: Path, store: Path, said: Said) -> Resolve:
    def resolve(*requirements: str, refresh: bool = False, **changes: Any) -> Lock:
        site = SiteConfig(pip_index_url=package_index.url)
        resolver = Resolver(store, site, refresh=refresh, reporter=said, cache=tmp_path / "cache")
        return resolver(replace(WANTED, requirements=requirements, **changes))

    return resolve


WANTED = Wanted(
    ecosystem="pypi",
    requirements=(),
    constraints=(),
    elsewhere=(),
    prereleases=False,
    python="3.11.2",
    architecture="amd64",
    suite="bookworm",
    source="https://git.example.org/a#",
)


def pins(lock: Lock) -> list[str]:
    return [f"{package.name}=={package.version}" for package in lock.packages]


def test_versions_with_hashes_for_the_images_python_and_platform(package_index: PackageIndex, resolve: Resolve) -> None:
    package_index.wheel("top", requires=["below>=1", "only-windows ; sys_platform == 'win32'"])
    package_index.wheel("below", "1.0")
    package_index.wheel("below", "2.0", tag="cp311-cp311-macosx_11_0_arm64")
    here = package_index.wheel("below", "2.0", tag="cp311-cp311-manylinux_2_28_x86_64")
    package_index.wheel("below", "3.0", tag="cp313-cp313-manylinux_2_28_x86_64")
    package_index.wheel("below", "4.0", tag="cp311-cp311-manylinux_2_38_x86_64")
    lock = resolve("top")
    assert pins(lock) == ["below==2.0", "top==1.0"]
    assert lock.packages[0].hashes == (f"sha256:{here.sha256}",)
    assert (lock.python, lock.platform, lock.origin) == ("3.11", "x86_64-manylinux_2_36", "resolved")
    assert pins(resolve("top", python="3.13.5", suite="trixie")) == ["below==3.0", "top==1.0"]


def test_a_new_c_library_takes_the_newest_wheels_that_uv_knows(package_index: PackageIndex, resolve: Resolve) -> None:
    package_index.wheel("below", "4.0", tag="cp313-cp313-manylinux_2_39_x86_64")
    lock = resolve("below", python="3.13.5", suite="trixie")
    assert pins(lock) == ["below==4.0"]
    assert lock.platform == "x86_64-manylinux_2_41"
    with pytest.raises(DetectError, match="cannot be resolved ahead for ppc64le .--no-lock leaves"):
        resolve("below", architecture="ppc64le")


def test_what_has_no_wheel_is_left_to_the_build(package_index: PackageIndex, resolve: Resolve) -> None:
    package_index.wheel("top", requires=["source>=1", "below"])
    package_index.wheel("pinned", requires=["source2==1.0"])
    package_index.wheel("below")
    package_index.sdist("source", "1.0", requires=["never-asked-for"])
    package_index.sdist("source2", "1.0")
    package_index.wheel("picky", requires=["source3>=1,<1.9"])
    for version in ("0.9", "1.0", "1.1", "2.0"):
        package_index.sdist("source3", version)
    package_index.sdist("old", "1.0")
    package_index.wheel("old", "2.0")
    lock = resolve("top", "pinned", "picky", "old<2")
    assert pins(lock) == ["below==1.0", "picky==1.0", "pinned==1.0", "top==1.0"]
    assert lock.unresolved == ("old", "source", "source2", "source3")
    assert not [path for path in package_index.requests if path.endswith(".tar.gz")]


def test_an_older_version_with_a_wheel_comes_before_a_newer_one_without(
    package_index: PackageIndex, resolve: Resolve
) -> None:
    package_index.wheel("a", "1.0")
    package_index.sdist("a", "2.0")
    assert pins(resolve("a")) == ["a==1.0"]


def test_what_comes_from_elsewhere_is_never_asked_of_the_index(package_index: PackageIndex, resolve: Resolve) -> None:
    package_index.wheel("top", requires=["mine"])
    package_index.wheel("mine", "9.9")
    lock = resolve("top", elsewhere=("mine",))
    assert pins(lock) == ["top==1.0"]
    assert lock.unresolved == ()
    assert "/simple/mine/" not in package_index.requests


def test_constraints_hashes_and_prereleases(package_index: PackageIndex, resolve: Resolve) -> None:
    linux = package_index.wheel("a", "1.0", tag="cp311-cp311-manylinux_2_28_x86_64")
    pure = package_index.wheel("a", "1.0")
    package_index.wheel("a", "2.0")
    package_index.wheel("a", "3.0rc1")
    assert pins(resolve("a")) == ["a==2.0"]
    assert pins(resolve("a", prereleases=True, source="another")) == ["a==3.0rc1"]
    lock = resolve("a", constraints=("a<2",))
    assert lock.packages[0].hashes == tuple(sorted((f"sha256:{linux.sha256}", f"sha256:{pure.sha256}")))
    assert resolve(f"a==1.0 --hash=sha256:{pure.sha256}").packages[0].hashes == (f"sha256:{pure.sha256}",)
    constrained = resolve("a", constraints=(f"a==1.0 --hash=sha256:{linux.sha256}",))
    assert constrained.packages[0].hashes == (f"sha256:{linux.sha256}",)
    # The hash of something else, of a source perhaps: the build finds out.
    assert resolve(f"a==1.0 --hash=sha256:{'0' * 64}").unresolved == ("a",)


def test_yanked_versions_and_missing_extras_are_warned_of(
    package_index: PackageIndex, resolve: Resolve, said: Said
) -> None:
    package_index.wheel("a", "1.0")
    package_index.wheel("a", "2.0", yanked=True)
    assert pins(resolve("a[more]")) == ["a==1.0"]
    assert any("does not have an extra named `more`" in line for line in said.lines)
    assert pins(resolve("a==2.0")) == ["a==2.0"]
    assert any("`a==2.0` is yanked" in line for line in said.lines)


@pytest.mark.parametrize(
    ("requirements", "message"),
    [
        (["nothing"], r"nothing was not found in the package registry and you require nothing .check the spelling"),
        (["a==9"], r"there is no version of a==9 and you require a==9 .ask for a version that there is"),
        (["a==1.0", "a==2.0"], r"you require a==1\.0 and a==2\.0 .ask for other versions"),
        (["top", "below==1.0"], r"all versions of top depend on below>=2 and you require top.*you require below==1\.0"),
        (
            ["elsewhere"],
            r"only found wheels for `elsewhere` .v1\.0. with the following.*another Python in runtime\.txt",
        ),
        # That some other version of it has no wheel is not why.
        (["some-source", "below==1.0"], r"some-source.* depends on below>=2"),
    ],
)
def test_a_conflict_is_one_line(
    package_index: PackageIndex, resolve: Resolve, requirements: list[str], message: str
) -> None:
    package_index.wheel("a", "1.0")
    package_index.wheel("a", "2.0")
    package_index.wheel("top", requires=["below>=2"])
    package_index.wheel("below", "1.0")
    package_index.wheel("below", "2.0")
    package_index.wheel("some-source", "2.0", requires=["below>=2"])
    package_index.sdist("some-source", "1.0")
    package_index.wheel("elsewhere", tag="cp38-cp38-manylinux_2_28_x86_64")
    with pytest.raises(DetectError, match=rf"^no versions fit together: .*{message}") as caught:
        resolve(*requirements)
    assert "\n" not in str(caught.value)


def test_what_was_found_is_kept_until_refresh(
    package_index: PackageIndex, resolve: Resolve, store: Path, said: Said
) -> None:
    package_index.wheel("a", "1.0")
    first = resolve("a")
    asked = len(package_index.requests)
    package_index.wheel("a", "2.0")
    assert resolve("a") == first
    assert resolve("a", source="https://git.example.org/another") == first
    assert len(package_index.requests) == asked
    assert "as found before" in said.lines[-1]
    assert pins(resolve("a", refresh=True)) == ["a==2.0"]
    assert pins(resolve("a")) == ["a==2.0"]
    for path in store.rglob("*.json"):
        path.write_text(path.read_text()[:40])
    package_index.wheel("a", "3.0")
    assert pins(resolve("a", refresh=True)) == ["a==3.0"]


def test_an_image_is_made_again_with_its_versions(
    package_index: PackageIndex, resolve: Resolve, tmp_path: Path, said: Said
) -> None:
    package_index.wheel("a", "1.0")
    package_index.wheel("b", "1.0")
    first = resolve("a")
    second = resolve("a", "b")
    package_index.wheel("a", "2.0")
    package_index.wheel("b", "2.0")
    package_index.requests.clear()
    # Elsewhere, by somebody who has none of our locks.
    site = SiteConfig(pip_index_url=package_index.url)
    again = Resolver(tmp_path / "none", site, refresh=False, reporter=said, given=[second], cache=tmp_path / "cache2")
    assert again(replace(WANTED, requirements=("a", "b"))) == second
    assert second.layers == (("a",), ("b",))
    assert package_index.requests == []
    assert again.layered(replace(second, inputs="", layers=())).layers == second.layers
    # Something else is wanted now: versions are kept where they fit.
    lock = again(replace(WANTED, requirements=("a", "b>1")))
    assert pins(lock) == ["a==1.0", "b==2.0"]
    assert first.inputs != second.inputs != lock.inputs


def test_another_line_does_not_upgrade_the_others(package_index: PackageIndex, resolve: Resolve) -> None:
    package_index.wheel("a", "1.0")
    package_index.wheel("b")
    package_index.wheel("c")
    assert pins(resolve("a")) == ["a==1.0"]
    package_index.wheel("a", "2.0")
    assert pins(resolve("a", "b")) == ["a==1.0", "b==1.0"]
    assert pins(resolve("a>1", "b")) == ["a==2.0", "b==1.0"]
    assert pins(resolve("a", "c", source="https://git.example.org/another")) == ["a==2.0", "c==1.0"]


def test_a_wheels_metadata_are_asked_for_once(package_index: PackageIndex, resolve: Resolve) -> None:
    # The index does not say how long they may be kept, as mirrors fail to.
    for name in "abc":
        package_index.wheel(name)
    resolve("a", "b")
    package_index.requests.clear()
    resolve("a", "b", "c")
    asked = {path for path in package_index.requests if path.startswith("/files/")}
    assert asked == {"/files/c-1.0-py3-none-any.whl.metadata"}


def test_layers_stand_on_those_made_before(package_index: PackageIndex, resolve: Resolve) -> None:
    for name in "abcdef":
        package_index.wheel(name)
    assert resolve("a", "b", "c").layers == (("a", "b", "c"),)
    assert resolve("a", "b", "c", "d").layers == (("a", "b", "c"), ("d",))
    assert resolve("a", "b", "c", "d", "e").layers == (("a", "b", "c"), ("d",), ("e",))
    # Another repository, with one package less.
    assert resolve("a", "b", "c", "f", source="other").layers == (("a", "b", "c"), ("f",))
    # Another Python has none of that.
    assert resolve("a", "b", "c", "d", python="3.13.5", suite="trixie").layers == (("a", "b", "c", "d"),)


def test_without_a_store_nothing_is_kept(
    package_index: PackageIndex, tmp_path: Path, resolve: Resolve, store: Path
) -> None:
    package_index.wheel("a")
    store.rmdir()
    resolve("a")
    assert not store.exists()
    store.mkdir(mode=0o500)
    resolve("a")
    if os.geteuid() != 0:
        assert not any(store.iterdir())


def test_two_at_once_leave_one_lock_that_can_be_read(
    package_index: PackageIndex, resolve: Resolve, store: Path
) -> None:
    for name in "abc":
        package_index.wheel(name)
    found: list[Lock] = []
    threads = [threading.Thread(target=lambda: found.append(resolve("a", "b", "c"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    asked = len(package_index.requests)
    assert resolve("a", "b", "c") in found
    assert len(package_index.requests) == asked
    assert not [path for path in store.rglob("*") if path.name.startswith(".")]


def test_uv_gets_nothing_of_this_machine(
    package_index: PackageIndex, resolve: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_index.wheel("a")
    home = tmp_path / "home"
    (home / ".config" / "uv").mkdir(parents=True)
    (home / ".config" / "uv" / "uv.toml").write_text('[[index]]\nurl = "http://127.0.0.1:9/simple"\n')
    (tmp_path / "uv.toml").write_text('[pip]\nindex-url = "http://127.0.0.1:9/simple"\n')
    (tmp_path / "pyproject.toml").write_text('[tool.uv.pip]\nindex-url = "http://127.0.0.1:9/simple"\n')
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "UV_EXTRA_INDEX_URL": "http://127.0.0.1:9/simple",
        "UV_FIND_LINKS": "/nowhere",
        "UV_OVERRIDE": "/nowhere",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    assert pins(resolve("a")) == ["a==1.0"]


@pytest.mark.parametrize(
    "line",
    [
        "-r /etc/passwd",
        "--extra-index-url http://127.0.0.1:9/",
        "a @ git+https://127.0.0.1:9/a",
        "a @ file:///etc/passwd",
        "https://127.0.0.1:9/a-1-py3-none-any.whl",
        "./a",
        ".",
        "a==${HOME}",
        "a\n-r /etc/passwd",
    ],
)
def test_only_names_reach_uv(package_index: PackageIndex, resolve: Resolve, line: str) -> None:
    package_index.wheel("a")
    for arguments in ({"requirements": (line,)}, {"constraints": (line,)}):
        with pytest.raises(DetectError, match="names nothing on the package index"):
            resolve("a") if False else resolve(*arguments.pop("requirements", ("a",)), **arguments)
    assert package_index.requests == []


def test_an_index_that_leads_elsewhere_is_not_followed_there(
    package_index: PackageIndex, resolve: Resolve, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    package_index.wheel("a", requires=[f"b @ git+https://127.0.0.1:{package_index.url.split(':')[2][:-7]}/b"])
    package_index.wheel("c", requires=[f"d @ file://{tmp_path}/d"])
    package_index.sdist("e", setup=f"open({str(canary)!r}, 'w')")
    for name in ("a", "c"):
        with pytest.raises((DetectError, FetchError)):
            resolve(name)
    assert resolve("e").unresolved == ("e",)
    assert not canary.exists()
    assert not [path for path in package_index.requests if "git" in path]


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b""), (200, b"<html>" + b"x" * 1000), (200, b"{" * 100_000), (200, b""), (401, b""), (403, b"")],
)
def test_an_index_that_answers_nonsense(
    package_index: PackageIndex, resolve: Resolve, status: int, body: bytes
) -> None:
    package_index.answer = lambda path: (status, body)
    with pytest.raises((DetectError, FetchError)) as caught:
        resolve("a")
    assert len(str(caught.value)) < 2000
    assert "\n" not in str(caught.value)


def test_an_index_without_hashes(package_index: PackageIndex, resolve: Resolve) -> None:
    wheel = package_index.wheel("a")
    page = b'<a href="../../files/a-1.0-py3-none-any.whl">a-1.0-py3-none-any.whl</a>'
    package_index.answer = lambda path: (200, page) if path == "/simple/a/" else None
    assert resolve("a").packages[0].hashes == (f"sha256:{wheel.sha256}",)


def test_an_index_that_is_not_there_says_what_to_do_and_no_password(store: Path, tmp_path: Path) -> None:
    site = SiteConfig(pip_index_url="http://me:hunter2@127.0.0.1:9/simple")
    resolver = Resolver(store, site, refresh=False, reporter=Said(), cache=tmp_path / "cache")
    with pytest.raises(FetchError, match=r"index http://127\.0\.0\.1:9/simple could not be asked.*--no-lock") as caught:
        resolver(replace(WANTED, requirements=("a",)))
    assert "hunter2" not in str(caught.value)


def test_an_index_that_never_ends_is_given_up(package_index: PackageIndex, tmp_path: Path) -> None:
    going_on = threading.Event()

    def answer(path: str) -> tuple[int, bytes]:
        going_on.wait(60)
        return 404, b""

    package_index.answer = answer
    uv = Uv(SiteConfig(pip_index_url=package_index.url), cache=tmp_path / "cache", timeout=1)
    try:
        with pytest.raises(FetchError, match=r"took more than 1 s .*--no-lock"):
            uv.compile(["a"], python="3.11.2", platform="x86_64-manylinux_2_36")
    finally:
        going_on.set()


def test_credentials_reach_the_index_and_are_never_kept(
    package_index: PackageIndex, store: Path, tmp_path: Path, said: Said
) -> None:
    package_index.wheel("a")
    package_index.login = base64.b64encode(b"me:hunter2").decode()
    url = package_index.url.replace("://", "://me:hunter2@")
    site = SiteConfig(pip_index_url=url)
    resolver = Resolver(store, site, refresh=False, reporter=said, cache=tmp_path / "cache")
    assert pins(resolver(replace(WANTED, requirements=("a",)))) == ["a==1.0"]
    assert "hunter2" not in "".join(said.lines)
    kept = [path for folder in (store, tmp_path / "cache") for path in folder.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if b"hunter2" in path.read_bytes()]
    assert "hunter2" not in Uv(site, cache=None).settings()  # which lies in a temporary folder meanwhile


def test_metadata_that_only_an_old_pip_reads_are_told_apart(package_index: PackageIndex, resolve: Resolve) -> None:
    package_index.wheel("old-frames", "0.24.2", requires=["zones (>=2011k)"])
    package_index.wheel("zones", "2019.1")
    with pytest.raises(OldMetadataError, match="old-frames==0.24.2 has invalid metadata"):
        resolve("old-frames==0.24.2", python="3.7.16")
    package_index.wheel("old-frames", "0.23.4", requires=["zones (>=2011k)"])
    with pytest.raises(OldMetadataError):
        resolve("old-frames<1", python="3.7.16")
    with pytest.raises(DetectError) as caught:
        resolve("zones<1", python="3.7.16")
    assert not isinstance(caught.value, OldMetadataError)


def test_a_python_that_uv_does_not_know(resolve: Resolve) -> None:
    with pytest.raises(DetectError, match=r"cannot be found ahead for Python 2\.7"):
        resolve("zones", python="2.7.18")

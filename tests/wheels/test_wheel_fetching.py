"""Which wheel is taken, from where, and how often anybody is asked."""

from __future__ import annotations

import base64
import hashlib
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from package_index import File, PackageIndex, serving
from wheelmaker import Install, Said, locked, publish, target, wheel

from hpcbinder.config import SiteConfig
from hpcbinder.errors import FetchError


def files_asked(index: PackageIndex) -> list[str]:
    return [path.rpartition("/")[2] for path in index.requests if path.startswith("/files/")]


def test_what_has_a_layer_asks_nobody(package_index: PackageIndex, install: Install, folder: Path) -> None:
    one, two = wheel("one"), wheel("two")
    publish(package_index, one, two, wheel("two", tag="cp38-cp38-win32"))
    packages = locked(one), locked(two, *package_index.packages["two"])
    layers = install(*packages)
    package_index.requests.clear()
    for path in folder.glob("*.whl"):
        path.unlink()
    assert install(*packages) == layers
    assert package_index.requests == []
    # For another place the wheels are needed, but not whose they are.
    install(*packages, where=target("/srv/other"))
    package_index.requests.clear()
    install(*packages, where=target("/srv/third"))
    assert package_index.requests == []


def test_the_best_of_the_locked_wheels(package_index: PackageIndex, install: Install) -> None:
    tags = ("py3-none-any", "cp39-abi3-manylinux_2_5_x86_64", "cp39-abi3-manylinux_2_28_x86_64.manylinux2014_x86_64")
    worse = ("cp39-abi3-manylinux_2_39_x86_64", "cp39-abi3-musllinux_1_1_x86_64", "cp39-abi3-manylinux_2_28_aarch64")
    wheels = [wheel(tag=tag) for tag in (*tags, *worse, "cp38-cp38-manylinux_2_28_x86_64", "py2-none-any")]
    publish(package_index, *wheels, wheel(version="2.0"), File("pack-1.0.tar.gz", b""), File("pack-x-y.whl", b""))
    install(locked(*wheels))
    assert files_asked(package_index) == [wheels[2].name]
    package_index.requests.clear()
    # A file that the lock does not know is not taken, however good.
    install(locked(wheels[0], wheels[1]))
    assert files_asked(package_index) == [wheels[1].name]


def test_nothing_fits(package_index: PackageIndex, install: Install) -> None:
    file = wheel(tag="cp39-abi3-win_amd64")
    publish(package_index, file)
    with pytest.raises(FetchError, match=r"pack 1.0: no wheel of it runs on Python 3\.\d+\.\d+ of x86_64-many"):
        install(locked(file))
    with pytest.raises(FetchError, match="pack 1.0: the index has no wheel with a hash that the lock has"):
        install(replace(locked(file), hashes=(f"sha256:{'0' * 64}",)))
    with pytest.raises(FetchError, match="absent: .*is not there"):
        install(locked(wheel("absent")))


def test_another_file_than_the_locked_one(package_index: PackageIndex, install: Install, folder: Path) -> None:
    file, forged = wheel(), wheel(files={"evil.py": ""})
    publish(package_index, file)
    package_index.answer = lambda path: (200, forged.content) if path.startswith("/files/") else None
    with pytest.raises(FetchError, match="pack 1.0: the file is not what the lock says .sha256 " + forged.sha256):
        install(locked(file))
    assert [path for path in folder.rglob("*") if path.suffix in (".whl", ".tmp", ".squashfs", ".json")] == []


def test_a_kept_wheel_that_was_changed(package_index: PackageIndex, install: Install, folder: Path) -> None:
    file = wheel()
    publish(package_index, file)
    install(locked(file))
    (folder / f"{file.sha256}.whl").write_bytes(wheel(files={"evil.py": ""}).content)
    with pytest.raises(FetchError, match="pack 1.0: the wheel that was kept is damaged"):
        install(locked(file), where=target("/srv/other"))


def test_a_lock_with_other_hashes(package_index: PackageIndex, install: Install) -> None:
    file = wheel()
    publish(package_index, file)
    good = replace(locked(file), hashes=(f"sha512:{hashlib.sha512(file.content).hexdigest()}",))
    layers = install(good)
    package_index.requests.clear()
    assert install(good) == layers
    assert package_index.requests == []
    with pytest.raises(FetchError, match="is not what the lock says"):
        install(replace(good, hashes=(f"sha512:{'0' * 128}",)))


@pytest.mark.parametrize("base", ["", '<base href="../../files/">'])
def test_pages_in_html(base: str, package_index: PackageIndex, install: Install) -> None:
    file, other = wheel(), wheel(version="1.1")
    publish(package_index, file)
    link = "" if base else "../../files/"
    page = f"""<!DOCTYPE html><html><head>{base}</head><body>
        <a href="{link}{other.name}#sha256={other.sha256}">{other.name}</a>
        <a data-requires-python="&gt;=3.7" href='{link}{file.name}#sha256={file.sha256}' >{file.name}</a><br/>"""
    package_index.answer = lambda path: (200, page.encode()) if path.startswith("/simple/") else None
    assert install(locked(file))
    assert files_asked(package_index) == [file.name]


@pytest.mark.parametrize(
    "page", [b"\xff\xfe", b"{}", b"[" * 100_000, b'{"files": [1]}', b'{"files": [{"filename": 1}]}']
)
def test_pages_that_are_none(page: bytes, package_index: PackageIndex, install: Install) -> None:
    file = wheel()
    respond = package_index.respond

    def as_json(path: str, headers: object) -> tuple[int, str, bytes]:
        return 200, "application/vnd.pypi.simple.v1+json", page

    package_index.respond = as_json  # type: ignore[method-assign, assignment]
    with pytest.raises(FetchError, match="pack: .*the index's page is not"):
        install(locked(file))
    package_index.respond = respond  # type: ignore[method-assign]


def test_the_login_goes_to_the_index_only(package_index: PackageIndex, install: Install) -> None:
    with serving(PackageIndex()) as elsewhere:
        near, far = wheel("near"), wheel("far")
        publish(package_index, near)
        publish(elsewhere, far)
        package_index.login = base64.b64encode(b"me:s3cret").decode()
        sent = []
        respond = elsewhere.respond

        def remembered(path: str, headers: dict[str, str]) -> tuple[int, str, bytes]:
            sent.append(headers.get("Authorization"))
            return respond(path, headers)

        elsewhere.respond = remembered  # type: ignore[method-assign, assignment]
        page = f'<a href="{elsewhere.url.replace("/simple", "/files")}/{far.name}#sha256={far.sha256}">far</a>'
        package_index.answer = lambda path: (200, page.encode()) if path == "/simple/far/" else None
        site = SiteConfig(pip_index_url=package_index.url.replace("://", "://me:s3cret@"))
        assert len(install(locked(near), locked(far), site=site)) == 2
        assert sent == [None]
        with pytest.raises(FetchError, match="absent: needs a login|absent: is not there") as caught:
            install(
                locked(wheel("absent")), site=SiteConfig(pip_index_url=site.pip_index_url.replace("s3cret", "wr0ng"))
            )  # type: ignore[union-attr]
        assert "wr0ng" not in str(caught.value)


def test_an_answer_that_breaks_off_is_asked_for_again(package_index: PackageIndex, install: Install) -> None:
    file = wheel()
    publish(package_index, file)
    respond, cut = package_index.respond, [1, 2]

    class Cut(bytes):
        def __len__(self) -> int:
            return super().__len__() + 10

    def once(path: str, headers: dict[str, str]) -> tuple[int, str, bytes]:
        status, kind, body = respond(path, headers)
        if path.startswith("/files/") and cut:
            cut.pop()
            return status, kind, Cut(body[:50])
        return status, kind, body

    package_index.respond = once  # type: ignore[method-assign, assignment]
    assert install(locked(file))
    assert len(files_asked(package_index)) == 3


def test_two_at_once_share_the_work(package_index: PackageIndex, install: Install) -> None:
    files = [wheel(f"pack{number}", files={f"m{number}.py": "x = 1\n"}) for number in range(6)]
    publish(package_index, *files)
    packages = [locked(file) for file in files]
    results: list[list[Path]] = []
    threads = [threading.Thread(target=lambda: results.append(install(*packages))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert results[0] == results[1] == results[2]
    assert sorted(files_asked(package_index)) == sorted(file.name for file in files)
    assert not list(results[0][0].parent.glob("*.lock"))


def test_it_is_said_what_goes_on(package_index: PackageIndex, install: Install, said: Said) -> None:
    file = wheel()
    publish(package_index, file)
    install(locked(file))
    # What is said twice is one line in a log, and a bar that moves on a terminal.
    assert said.lines == ["squashing 1 wheel", "squashing 1 wheel", "1 wheel: 1 squashed now, 0 there already"]
    assert said.logged == [file.name]
    said.lines.clear()
    install(locked(file))
    assert said.lines == ["1 wheel: 0 squashed now, 1 there already"]

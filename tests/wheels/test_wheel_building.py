"""What a build leaves is hostile; which source archive is meant; what pyproject.toml says of a build."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from hpcbinder.config import SiteConfig
from hpcbinder.errors import BuildError
from hpcbinder.model import Lock, Wanted
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Options
from hpcbinder.wheels import Source, Target, WheelBuilder, WheelStore
from hpcbinder.wheels.sdists import BuildSystem, Sdist, choose_sdist, read_build_system, read_sdists

TARGET = Target("/opt/env", "3.11.2", "/opt/env/bin/python", "amd64", "x86_64-manylinux_2_36")
WHEEL = "bad-1.0-py3-none-any.whl"


def builder(folder: Path) -> WheelBuilder:
    def resolve(wanted: Wanted) -> Lock:
        raise AssertionError(wanted)

    store = WheelStore(folder / "wheels", SiteConfig(), Options(), Silent())
    return WheelBuilder(folder / "built", resolve=resolve, wheels=store, scratch=folder, reporter=Silent())


def answers(out: Path, value: object) -> None:
    (out / "answer.json").write_text(json.dumps(value))


def to_a_link(out: Path) -> None:
    answers(out, {"wheel": WHEEL})
    (out / WHEEL).symlink_to("/etc/passwd")


def to_a_pipe(out: Path) -> None:
    answers(out, {"wheel": WHEEL})
    os.mkfifo(out / WHEEL)


def to_no_zip(out: Path) -> None:
    answers(out, {"wheel": WHEEL})
    (out / WHEEL).write_text("no zip")


def another(out: Path) -> None:
    answers(out, {"wheel": "other-1.0-py3-none-any.whl"})
    (out / "other-1.0-py3-none-any.whl").write_text("")


def for_another_machine(out: Path) -> None:
    answers(out, {"wheel": "bad-1.0-cp311-cp311-linux_s390x.whl"})
    (out / "bad-1.0-cp311-cp311-linux_s390x.whl").write_text("")


def outside(out: Path) -> None:
    answers(out, {"wheel": "../../secret-1.0-py3-none-any.whl"})


def an_answer_that_is_a_link(out: Path) -> None:
    (out / "answer.json").symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("leave", "words"),
    [
        (lambda out: None, "without a word"),
        (an_answer_that_is_a_link, "without a word"),
        (outside, "made no wheel"),
        (to_a_link, "cannot be kept"),
        (to_a_pipe, "left no file"),
        (to_no_zip, "refused"),
        (another, "another package or version"),
        (for_another_machine, "does not run on Python 3.11.2"),
    ],
)
def test_what_a_build_leaves(tmp_path: Path, leave: Callable[[Path], None], words: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    leave(out)
    with pytest.raises(BuildError, match=words):
        builder(tmp_path)._take("key", Source("bad", "1.0", "", tmp_path), TARGET, out, ())
    assert not [path for path in tmp_path.rglob("*.whl") if path.parent != out]


def page(*files: tuple[str, str, bool]) -> bytes:
    entries = [
        {"filename": name, "url": f"https://files.example.org/{name}", "hashes": {"sha256": "0" * 64}, "yanked": yanked}
        | ({"requires-python": python} if python else {})
        for name, python, yanked in files
    ]
    return json.dumps({"files": entries}).encode()


def test_the_newest_source_archive_that_will_do() -> None:
    content = page(
        ("thing-1.0.tar.gz", "", False),
        ("thing-1.1.zip", ">=3.8", False),
        ("thing-1.2.tar.gz", ">=3.12", False),
        ("thing-1.3.tar.gz", "", True),
        ("thing-2.0rc1.tar.gz", "", False),
        ("thing-9.0-py3-none-any.whl", "", False),
        ("other-9.0.tar.gz", "", False),
        ("thing-8.0.exe", "", False),
    )
    found = list(
        read_sdists(content, "application/vnd.pypi.simple.v1+json", "https://index.example.org/thing/", "thing")
    )

    def chosen(wanted: str = "", *, prereleases: bool = False) -> str:
        sdist = choose_sdist(
            found, "thing", SpecifierSet(wanted), hashes=frozenset(), python="3.11.2", prereleases=prereleases
        )
        return sdist.version

    assert chosen() == "1.1"
    assert chosen("<1.1") == "1.0"
    assert chosen("==1.3") == "1.3"  # who names it gets it, taken back or not
    assert chosen(prereleases=True) == "2.0rc1"
    with pytest.raises(BuildError, match=r"thing>=3 has neither a wheel nor a source archive"):
        chosen(">=3")


def test_a_source_of_the_time_comes_before_newer_ones() -> None:
    times = {"1.0": "2018-01-01T00:00:00Z", "2.0": "2019-01-01T00:00:00.5Z", "3.0": "2020-01-01T00:00:00Z", "4.0": ""}
    found = [Sdist(v, f"thing-{v}.tar.gz", "https://x.example.org/", "a" * 64, uploaded=t) for v, t in times.items()]

    def chosen(as_of: str, wanted: str = "") -> str:
        options = {"hashes": frozenset[str](), "python": "3.11.2", "prereleases": False, "as_of": as_of}
        return choose_sdist(found, "thing", SpecifierSet(wanted), **options).version

    assert chosen("2019-06-01T23:59:59Z") == "2.0"
    assert chosen("") == chosen("2017-06-01T23:59:59Z") == "4.0"
    assert chosen("2019-06-01T23:59:59Z", "==3.0") == "3.0"


def test_links_of_an_old_index() -> None:
    html = (
        f'<a href="../files/thing-1.0.tar.gz#sha256={"a" * 64}" data-requires-python="&gt;=3.9">thing-1.0.tar.gz</a>'
        f'<a href="../files/thing-1.1.tar.gz#sha256={"b" * 64}" data-yanked="">thing-1.1.tar.gz</a>'
        '<a href="../files/thing-1.2.tar.gz#md5=0">no sum that counts</a>'
    ).encode()
    url = "https://index.example.org/simple/thing/"
    assert list(read_sdists(html, "text/html", url, "thing")) == [
        Sdist("1.0", "thing-1.0.tar.gz", "https://index.example.org/simple/files/thing-1.0.tar.gz", "a" * 64, ">=3.9"),
        Sdist("1.1", "thing-1.1.tar.gz", "https://index.example.org/simple/files/thing-1.1.tar.gz", "b" * 64, "", True),
    ]


def archive(path: Path, project: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in ("thing-1.0/vendored/pyproject.toml", "thing-1.0/pyproject.toml"):
            text = project.encode() if name.count("/") == 1 else b"not toml ="
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return path


def test_what_building_takes(tmp_path: Path) -> None:
    path = tmp_path / "thing.tar.gz"
    system = read_build_system(
        archive(path, '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n')
    )
    assert system == BuildSystem("hatchling.build", ("hatchling",))
    legacy = BuildSystem("setuptools.build_meta:__legacy__", ("setuptools>=40.8.0",))
    assert read_build_system(archive(path, '[project]\nname = "thing"\n')) == legacy
    assert read_build_system(tmp_path) == legacy
    for text, words in (
        ('[build-system]\nbuild-backend = "a; import os"\n', "no build backend"),
        ('[build-system]\nrequires = []\nbuild-backend = "a"\nbackend-path = ["../up"]\n', "outside"),
        ('[build-system]\nrequires = "all"\n', "lists of texts"),
        ("a = = 1", "malformed"),
    ):
        with pytest.raises(BuildError, match=words):
            read_build_system(archive(path, text))
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(BuildError, match="cannot be read"):
        read_build_system(path)


def test_a_pyproject_outside_of_the_sources_is_not_read(tmp_path: Path) -> None:
    """A folder of a repository may be a link to one of the person's."""
    for folder in ("own", "sources/inside"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "pyproject.toml").write_text('[build-system]\nrequires = ["private-name"]\n')
    (tmp_path / "sources/link").symlink_to(tmp_path / "own")
    assert read_build_system(tmp_path / "sources", "inside").requires == ("private-name",)
    for subdirectory in ("link", "../own", str(tmp_path / "own")):
        assert "private-name" not in read_build_system(tmp_path / "sources", subdirectory).requires

"""Conda packages that mean no good, or are not well made: refused with the package's name, and nothing of them is
left."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import zstandard
from condamaker import PLACEHOLDER, PYTHON, Channel, Link, Made, Said, package, serving

from hpcbinder.builders.assembling import Workshops
from hpcbinder.builders.assembling.conda import CondaEnvironments
from hpcbinder.conda import CondaStore
from hpcbinder.config import SiteConfig, load
from hpcbinder.convert import LayerCache
from hpcbinder.errors import BuildError
from hpcbinder.model import Assembly, BaseRef, Lock, LockedPackage, Stage, Step
from hpcbinder.plan import conda_list
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Options
from hpcbinder.wheels import Target


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Channel]:
    (tmp_path / "scratch").mkdir()
    with serving(tmp_path / "channel") as channel:
        yield channel


def install(channel: Channel, made: Made, folder: Path) -> None:
    place = channel.folder / made.subdir / made.file
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(made.content)
    target = Target("/opt/env", PYTHON, "/opt/env/bin/python", "amd64", "x86_64-manylinux_2_36")
    store = CondaStore(folder / "store", SiteConfig(), Options(compressor="lz4"), Said())
    store.layers([made.locked(channel.url)], target, scratch=folder / "scratch", jobs=1)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"") -> Callable[..., None]:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, len(content)
        archive.addfile(info, io.BytesIO(content))

    return add


def entry(**changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    """Forge what `paths.json` says of the first file."""

    def change(entries: list[dict[str, Any]]) -> None:
        entries[0].update(changes)

    return change


def more(**values: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda entries: entries.append(values)


def noarch(*entry_points: str) -> dict[str, Any]:
    return {"noarch": "python", "entry_points": entry_points, "build": "py_0"}


FILE = {"share/x": "x"}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "out of its folder": ({"members": member("../../etc/x")}, "'../../etc/x' is no path that can be installed"),
    "absolute": ({"members": member("/etc/x")}, "'/etc/x' is no path that can be installed"),
    "listed outside": ({"files": FILE, "paths": more(_path="../x", path_type="hardlink")}, "no path that can be"),
    "whiteout": ({"members": member("share/.wh.bin")}, "would take away files of others"),
    "device": ({"members": member("share/null", tarfile.CHRTYPE)}, "neither a file nor a link"),
    "hard link out": ({"members": member("share/x", tarfile.LNKTYPE, "/etc/shadow")}, "link to what is not in the"),
    "link out": ({"files": {"lib/x": Link("../../etc/passwd")}}, "leads out of the environment, to '../../etc/passwd'"),
    "absolute link": ({"files": {"lib/x": Link("/etc/passwd")}}, "leads out of the environment"),
    "link out and in again": ({"files": {"x": Link("../prefix/y")}}, "leads out of the environment"),
    "file below a link": ({"files": {"lib": Link("share"), "lib/x": "x"}}, "'lib' where a folder must be"),
    "file below a file": ({"files": {"lib": "x", "lib/x": "x"}}, "'lib' where a folder must be"),
    "twice": ({"files": FILE, "members": member("share/x")}, "it has 'share/x' twice"),
    "another's record": ({"files": {"conda-meta/other-1-0.json": "{}"}}, "would speak for the environment"),
    "history": ({"files": {"conda-meta/history": ""}}, "would speak for the environment"),
    "a venv": ({"files": {"pyvenv.cfg": ""}}, "would speak for the environment"),
    "forged hash": ({"files": FILE, "paths": entry(sha256="0" * 64)}, "'share/x' is not what its info/paths.json says"),
    "forged size": ({"files": FILE, "paths": entry(size_in_bytes=7)}, "has 1 bytes, its info/paths.json says 7"),
    "forged kind": ({"files": FILE, "paths": entry(path_type="softlink")}, "says that 'share/x' is a softlink"),
    "listed twice": ({"files": FILE, "paths": more(_path="share/x")}, "has 'share/x' twice"),
    "not there": ({"files": FILE, "paths": more(_path="share/y")}, "'share/y' of its list of files is not there"),
    "no paths": ({"files": FILE, "paths": more(path=1)}, "something that is no path"),
    "short placeholder": (
        {"files": {"lib/x": b"/ab\0"}, "prefixes": {"lib/x": "binary"}, "placeholder": "/ab"},
        "has room for a prefix of 3 bytes",
    ),
    "placeholder with a line end": (
        {"files": FILE, "prefixes": {"share/x": "text"}, "placeholder": "/a\nb"},
        "a prefix in it that can be none",
    ),
    "mode": ({"files": FILE, "prefixes": {"share/x": "shell"}}, "a prefix in it in the mode 'shell'"),
    "another package": ({"index": {"name": "other"}}, "its index.json is of other 1.0 0"),
    "another version": ({"index": {"version": "2"}}, "its index.json is of pack 2 0"),
    "noarch": ({"index": {"noarch": "java"}}, "noarch 'java', which is not known"),
    "shell in an entry point": (noarch("x = os:system('id')"), "is no command"),
    "line in an entry point": (noarch("x = a:b\nimport os"), "is no command"),
    "entry point elsewhere": (noarch("../x = a:b"), "is no command"),
    "no entry point": (noarch("x"), "is no command"),
    "entry point twice": (noarch("x = a:b", "x = c:d"), "it has an entry point twice"),
    "entry point over a file": (
        {"files": {"python-scripts/x": ""}, **noarch("x = a:b")},
        "its entry point 'x' is also a file of it",
    ),
    "two files at one place": (
        {"files": {"python-scripts/x": "1", "bin/x": "2"}, **noarch()},
        "two of its files would be 'bin/x'",
    ),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("kind", [".conda", ".tar.bz2"])
def test_it_is_refused(channel: Channel, tmp_path: Path, name: str, kind: str) -> None:
    arguments, words = BAD[name]
    made = package(kind=kind, **arguments)
    with pytest.raises(BuildError) as caught:
        install(channel, made, tmp_path)
    assert caught.value.message.startswith(f"the conda package pack 1.0 {arguments.get('build', '0')} is refused: ")
    assert words in caught.value.message
    assert not list((tmp_path / "scratch").iterdir())
    assert not list((tmp_path / "store/layers").iterdir())


def forged(change: Callable[[zipfile.ZipFile], None], *, without: str = "") -> Made:
    """A `.conda` whose zip is not what it should be."""
    good = package(files=FILE)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good.content)) as archive, zipfile.ZipFile(out, "w") as other:
        for name in archive.namelist():
            if not without or not name.startswith(without):
                other.writestr(name, archive.read(name))
        change(other)
    return Made(good.file, good.subdir, out.getvalue())


def bomb(archive: zipfile.ZipFile) -> None:
    """A zstd tar of a few kilobytes with a file of three gigabytes in it."""
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    info = tarfile.TarInfo("share/x")
    info.size = 3 << 30
    parts = [packer.compress(info.tobuf())]
    zeros = bytes(1 << 22)
    parts += [packer.compress(zeros) for _ in range(16)]
    archive.writestr("pkg-pack-1.0-0.tar.zst", b"".join((*parts, packer.flush())))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (forged(lambda archive: None, without="pkg-"), "it has no pkg-pack-1.0-0.tar.zst"),
        (forged(lambda archive: None, without="info-"), "it has no info-pack-1.0-0.tar.zst"),
        (forged(lambda a: a.writestr("pkg-pack-1.0-0.tar.zst", b"no zstd"), without="pkg-"), "its archive is damaged"),
        (forged(bomb, without="pkg-"), "it unpacks to more than any package does"),
        (Made("pack-1.0-0.conda", "linux-64", b"no zip"), "it is no zip archive"),
        (Made("pack-1.0-0.tar.bz2", "linux-64", b"no bzip2"), "its archive is damaged"),
        (Made("pack-1.0-0.tar.bz2", "linux-64", package(kind=".tar.bz2").content[:100]), "its archive is damaged"),
    ],
    ids=["no files", "no info", "no zstd", "bomb", "no zip", "no bzip2", "cut off"],
)
def test_an_archive_that_is_none_is_refused(channel: Channel, tmp_path: Path, made: Made, words: str) -> None:
    with pytest.raises(BuildError, match=words):
        install(channel, made, tmp_path)
    assert not list((tmp_path / "scratch").iterdir())


def test_what_no_list_names_is_not_installed(channel: Channel, tmp_path: Path) -> None:
    """As with conda."""
    install(channel, package(files=FILE, members=member("bin/smuggled", content=b"x")), tmp_path)
    assert len(list((tmp_path / "store/layers").iterdir())) == 1


def test_odd_metadata(channel: Channel, tmp_path: Path) -> None:
    deep = json.loads("[" * 500 + "]" * 500)
    install(channel, package(files=FILE, index={"extra": deep}), tmp_path)
    made = package(files=FILE, old=True, placeholder=PLACEHOLDER + '" text "../x', prefixes={"share/x": "text"})
    (tmp_path / "other/scratch").mkdir(parents=True)
    with pytest.raises(BuildError, match="its info/has_prefix has a line"):
        install(channel, Made("pack-1.0-0.conda", "linux-64", made.content), tmp_path / "other")


@pytest.mark.parametrize("name", ["https://channels.example/other", "https://channels.example/own-not"])
def test_a_python_of_a_channel_that_is_not_the_sites_is_not_started_here(tmp_path: Path, name: str) -> None:
    """Anybody can have a channel on a public server, and a repository names it."""
    url = f"{name}/linux-64/python-3.12.99rc1-0.conda"
    python = LockedPackage("python", "3.12.99rc1", (f"sha256:{'a' * 64}",), url=url, build="0", size=1)
    store = CondaStore(tmp_path / "store", SiteConfig(), Options(), Silent())
    environments = CondaEnvironments(
        store,
        channels=["https://channels.example/own"],
        cache=LayerCache(tmp_path / "layers", Options()),
        workshops=Never(load({}), Silent()),
        options=Options(),
        scratch=tmp_path,
        reporter=Silent(),
    )
    listed = conda_list(Lock("conda", "x", "3.12", "linux-64", (python,), (("python",),)))
    step = Step(
        Stage.DEPENDENCIES, "conda/x", "x", "", data={"list": listed}, assembly=Assembly("/opt/env", conda="list")
    )
    target = Target("/opt/env", "3.12.99rc1", "/opt/env/bin/python", "amd64", "x86_64-manylinux_2_36")
    plan = SimpleNamespace(steps=(step,))
    with pytest.raises(BuildError, match="comes from a channel that is not one of this site's"):
        environments.interpreter(plan, [], target)()  # type: ignore[arg-type]


class Never(Workshops):
    def any(self, base: BaseRef, what: str) -> NoReturn:
        raise AssertionError("nothing is run")

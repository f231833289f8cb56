"""What a conda package becomes: the same files that rattler's own installer leaves, and hash-based bytecode."""

from __future__ import annotations

import importlib.util
import json
import marshal
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from base_layer import base_layer
from condamaker import PLACEHOLDER, PYTHON, X_Y, Channel, Hard, Link, Made, Said, package, python_package, serving

from hpcbinder.builders.assembling.interpreter import system_loader
from hpcbinder.catalog import items
from hpcbinder.conda import CondaLayer, CondaStore
from hpcbinder.conda.prefix import replaced
from hpcbinder.conda.scripts import harmless
from hpcbinder.config import SiteConfig
from hpcbinder.errors import BuildError, FetchError
from hpcbinder.squashfs import Image, Options, merge
from hpcbinder.wheels import Refused, Target
from rig import Rig, User

SITE = f"lib/python{X_Y}/site-packages"
TAG = f"cpython-{X_Y.replace('.', '')}"

NATIVE = package(
    "native",
    "2.1",
    {
        "bin/tool": f'#!{PLACEHOLDER}/bin/python -s\nprint("{PLACEHOLDER}/share")\n',
        "bin/long": f"#!{PLACEHOLDER}/{'d' * 130}/perl -w\nprint 1\n",
        "bin/plain": "#!/bin/sh\n",
        "lib/libn.so": b"\x7fELF\0" + f"{PLACEHOLDER}/a:{PLACEHOLDER}/b".encode() + b"\0tail\0",
        "lib/libn.so.1": Link("libn.so"),
        "share/deep/er/link": Link("../../../lib/libn.so"),
        "share/copy": Hard("lib/libn.so"),
        "share/empty": "",
        "share/ünï code": "x",
        f"{SITE}/ext/__init__.py": "X = 1\n",
        f"{SITE}/ext/__pycache__/__init__.{TAG}.pyc": "stale",
        f"{SITE}/ext/broken.py": "def (:\n",
        f"lib/python{X_Y}/tool.py": f"WHERE = '{PLACEHOLDER}'\n",
        "Menu/native.json": "{}",
    },
    prefixes={"bin/tool": "text", "bin/long": "text", "lib/libn.so": "binary", f"lib/python{X_Y}/tool.py": "text"},
    executable=["bin/tool", "bin/long", "bin/plain"],
)
OLD = package(
    "older",
    "1.0",
    {"etc/older.conf": f"at {PLACEHOLDER}\n", "bin/older": "x"},
    prefixes={"etc/older.conf": "text"},
    executable=["bin/older"],
    kind=".tar.bz2",
    old=True,
    depends=["native"],
)
PURE = package(
    "pure",
    "3.0",
    {
        "site-packages/pure/__init__.py": "def main():\n    print('pure')\n",
        "site-packages/pure/data.txt": f"{PLACEHOLDER}\n",
        "python-scripts/run-pure": "#!/bin/sh\n",
        "share/pure.txt": "x",
    },
    build="pyhd8ed1ab_0",
    noarch="python",
    depends=["python", "older"],
    entry_points=["pure = pure:main", "pure-too = pure : main"],
    prefixes={"site-packages/pure/data.txt": "text"},
    executable=["python-scripts/run-pure"],
)


@dataclass
class Place:
    channel: Channel
    folder: Path
    said: Said

    def target(self, python: str = PYTHON) -> Target:
        return Target("/opt/env", python, "/opt/env/bin/python", "amd64", "x86_64-manylinux_2_36")

    def layers(self, *packages: Made, python: str = PYTHON, **arguments: Any) -> list[CondaLayer]:
        """Layers of packages of the channel; they need not be in its index."""
        for each in packages:
            path = self.channel.folder / each.subdir / each.file
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_bytes(each.content)
        locked = [each.locked(self.channel.url) for each in packages]
        store = CondaStore(self.folder / "store", SiteConfig(), Options(compressor="lz4"), self.said)
        return store.layers(locked, self.target(python), scratch=self.folder / "scratch", **arguments)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "scratch").mkdir()
    with serving(tmp_path / "channel") as channel:
        yield Place(channel, tmp_path, Said())


def tree(layers: Sequence[CondaLayer], folder: Path) -> dict[str, tuple[str, bool, bytes]]:
    """Path below the prefix -> kind, whether it is executable, content or target."""
    found = {}
    with (folder / "merged.squashfs").open("w+b") as file:
        merge([layer.path for layer in layers], file)
    with Image.open(folder / "merged.squashfs") as image:
        for path, node in image.walk("opt/env"):
            if node.kind == "symlink":
                found[path] = ("symlink", False, (node.target or "").encode())
            elif node.kind == "file":
                found[path] = ("file", bool(node.mode & 0o111), image.read(f"opt/env/{path}", 1 << 30))
                assert node.mode in (0o644, 0o755)
    return found


INSTALL = """
import asyncio, os, sys
from pathlib import Path
import rattler

async def install(channel, folder):
    gateway = rattler.Gateway(cache_dir=folder / "gateway")
    records = await rattler.solve([channel], ["pure"], gateway=gateway, platforms=["linux-64", "noarch"])
    await rattler.install(
        records, folder / "prefix", cache_dir=folder / "packages", show_progress=False,
        alternative_target_prefix="/opt/env", execute_link_scripts=False,
    )

asyncio.run(install(sys.argv[1], Path(sys.argv[2])))
os._exit(0)  # its threads do not always survive the interpreter's end
"""
READ = """
import os, sys, rattler
for path in sys.argv[1:]:
    print(rattler.PrefixRecord.from_path(path).name.normalized, flush=True)
os._exit(0)
"""


def rattler(program: str, *arguments: str | Path) -> str:
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def installed_by_rattler(channel: Channel, folder: Path) -> dict[str, tuple[str, bool, bytes]]:
    rattler(INSTALL, channel.url, folder)
    found = {}
    for path in (folder / "prefix").rglob("*"):
        name, status = str(path.relative_to(folder / "prefix")), path.lstat()
        if stat.S_ISLNK(status.st_mode):
            found[name] = ("symlink", False, os.readlink(path).encode())  # noqa: PTH115 - its text
        elif stat.S_ISREG(status.st_mode):
            found[name] = ("file", bool(status.st_mode & 0o111), path.read_bytes())
    return found


def test_it_is_what_rattler_installs(place: Place) -> None:
    python = package(
        "python", PYTHON, {f"bin/python{X_Y}": "x", "bin/python": Link(f"python{X_Y}")}, executable=[f"bin/python{X_Y}"]
    )
    place.channel.add(python, NATIVE, OLD, PURE)
    mine = tree(place.layers(python, NATIVE, OLD, PURE), place.folder)
    theirs = installed_by_rattler(place.channel, place.folder / "theirs")
    records = {path for path in theirs if path.startswith("conda-meta/") and path.endswith(".json")}
    # What only an environment as a whole has.
    assert theirs.keys() - mine.keys() == {"CACHEDIR.TAG", "conda-meta/history"}
    bytecode = {path for path in mine if path.endswith(".pyc")}
    assert mine.keys() - theirs.keys() == bytecode - theirs.keys()
    commands = {"bin/pure", "bin/pure-too"}
    for path in theirs.keys() & mine.keys() - records - bytecode - commands:
        assert mine[path] == theirs[path], path
    for path in commands:
        # The same by what they mean.
        first, text = mine[path][2].decode().split("\n", 1)
        assert theirs[path][2].decode().startswith(f"{first}\n") and theirs[path][:2] == mine[path][:2]
        assert "from pure import main" in text and "sys.exit(main())" in text
    for path in records:
        said, other = json.loads(mine[path][2]), json.loads(theirs[path][2])
        for key in ("name", "version", "build", "build_number", "depends", "fn", "url", "sha256", "size", "subdir"):
            assert said[key] == other[key], (path, key)
        added = bytecode - set(other["files"])
        assert set(said["files"]) - added == set(other["files"]), path
        (place.folder / Path(path).name).write_bytes(mine[path][2])
        assert rattler(READ, place.folder / Path(path).name) == f"{said['name']}\n"
        theirs_by_path = {each["_path"]: each for each in other["paths_data"]["paths"]}
        for each in said["paths_data"]["paths"]:
            if each["path_type"] == "hardlink" and each["_path"] not in bytecode:
                same = theirs_by_path[each["_path"]]
                wanted = same.get("sha256_in_prefix") or same["sha256"]
                assert (each["sha256_in_prefix"], each["size_in_bytes"]) == (wanted, same["size_in_bytes"]), each


def test_prefixes_are_replaced(place: Place) -> None:
    found = tree(place.layers(NATIVE), place.folder)
    assert found["bin/tool"] == ("file", True, b'#!/opt/env/bin/python -s\nprint("/opt/env/share")\n')
    assert found["bin/long"][2] == b"#!/usr/bin/env perl -w\nprint 1\n"
    library = found["lib/libn.so"][2]
    assert library.startswith(b"\x7fELF\0/opt/env/a:/opt/env/b\0")
    assert library.endswith(b"\0tail\0")
    assert len(library) == len(found["share/copy"][2])


@pytest.mark.parametrize(
    ("content", "binary", "wanted"),
    [
        (b"a/long/old\0b", True, b"a/new\0\0\0\0\0\0b"),
        (b"/long/old:/long/old\0", True, b"/new:/new\0" + bytes(10)),
        # Without an end it is no string of C's, to conda; rattler takes it for one.
        (b"/long/old", True, b"/long/old"),
        (b"/long/old", False, b"/new"),
        (b"\0" * 3, True, b"\0" * 3),
    ],
)
def test_strings_keep_their_length(content: bytes, binary: bool, wanted: bytes) -> None:
    assert replaced(content, "/long/old", "/new", binary=binary, path="x") == wanted


def test_a_prefix_that_has_no_room_is_refused() -> None:
    with pytest.raises(Refused, match="'lib/x' has room for a prefix of 3 bytes, /opt/env has 8"):
        replaced(b"/ab\0", "/ab", "/opt/env", binary=True, path="lib/x")


def test_bytecode_is_of_the_environments_python_and_goes_by_no_time(place: Place) -> None:
    found = tree(place.layers(NATIVE, PURE), place.folder)
    source = found[f"{SITE}/ext/__init__.py"][2]
    compiled = found[f"{SITE}/ext/__pycache__/__init__.{TAG}.pyc"][2]
    assert compiled[:4] == importlib.util.MAGIC_NUMBER
    assert compiled[4:8] == b"\1\0\0\0"
    assert compiled[8:16] == importlib.util.source_hash(source)
    assert marshal.loads(compiled[16:]).co_filename == f"/opt/env/{SITE}/ext/__init__.py"
    assert f"{SITE}/pure/__pycache__/__init__.{TAG}.pyc" in found
    assert f"{SITE}/ext/__pycache__/broken.{TAG}.pyc" not in found


def test_a_later_package_takes_the_place_of_files(place: Place) -> None:
    one, two = package("one", files={"share/both": "1", "share/one": "1"}), package("two", files={"share/both": "2"})
    assert tree(place.layers(one, two), place.folder)["share/both"][2] == b"2"
    assert "share/both is in one and two; two's stays" in place.said.lines
    assert tree(place.layers(two, one), place.folder)["share/both"][2] == b"1"


def test_what_is_there_is_neither_fetched_nor_made_again(place: Place) -> None:
    first = place.layers(NATIVE)
    asked = len(place.channel.requests)
    assert place.layers(NATIVE) == first
    assert len(place.channel.requests) == asked
    # What was fetched is looked at before it is used again, and fetched anew if it is damaged.
    first[0].path.unlink()
    (kept,) = (place.folder / "store").glob("*.package")
    kept.write_bytes(b"damaged")
    same = place.layers(NATIVE)
    assert same == first
    assert len(place.channel.requests) == asked + 1
    assert not list((place.folder / "scratch").iterdir())


def test_what_is_kept_goes_in_time(place: Place) -> None:
    """As packages that `gc` knows."""
    place.layers(NATIVE)
    (place.folder / "catalog").mkdir()
    (place.folder / "catalog/conda").symlink_to(place.folder / "store")
    kinds = {item.kind: item.name for item in items(place.folder / "catalog")}
    assert kinds["wheel"] == f"{NATIVE.sha256}.package"
    assert kinds["package"].startswith(NATIVE.sha256)


def test_a_package_that_is_another_is_refused(place: Place) -> None:
    (place.channel.folder / "linux-64").mkdir()
    (place.channel.folder / "linux-64" / NATIVE.file).write_bytes(NATIVE.content[:-1] + b"x")
    with pytest.raises(FetchError, match="native 2.1: the file is not what the lock says"):
        place.layers(NATIVE)
    (place.channel.folder / "linux-64" / NATIVE.file).write_bytes(NATIVE.content + bytes(1 << 20))
    with pytest.raises(FetchError, match=f"native: the server sends more than {len(NATIVE.content)} bytes"):
        place.layers(NATIVE)
    assert not list((place.folder / "scratch").iterdir())


@pytest.mark.parametrize(
    ("script", "is_harmless"),
    [
        ('#!/bin/bash\nset -eu\n# why\necho "Thanks for $PKG_NAME" >> "${PREFIX}/.messages.txt"\n\nexit 0\n', True),
        ('"${PREFIX}/bin/fc-cache" -f >> "$PREFIX/.messages.txt" 2>&1 || true\n', True),
        ('"${PREFIX}/bin/jupyter-nbextension" enable widgetsnbextension --py --sys-prefix > /dev/null 2>&1\n', True),
        ('"${PREFIX}/bin/dot" -c\n', False),
        ('echo "$(touch /tmp/x)"\n', False),
        ("echo `id`\n", False),
        ("echo hi; touch x\n", False),
        ("echo hi > $PREFIX/share/needed\n", False),
        ("echo hi \\\n", False),
        ("\xff\n", False),
    ],
)
def test_scripts_that_need_not_be_run(script: str, is_harmless: bool) -> None:
    assert harmless(script.encode("latin-1")) is is_harmless


def test_link_scripts_are_told(place: Place) -> None:
    quiet = package("quiet", files={"bin/.quiet-post-link.sh": "echo done\n"})
    wants = package("wants", files={"bin/.wants-post-link.sh": "dot -c\n", "bin/.wants-pre-unlink.sh": "rm -r x\n"})
    found = place.layers(quiet, wants)
    assert [layer.scripts for layer in found] == [(), ("bin/.wants-post-link.sh",)]


def test_a_packages_own_python_compiles_without_any_container(place: Place, rig: Rig, user: User) -> None:
    """Where this machine has no Python of the same version."""
    from hpcbinder.builders.assembling.conda import unpacked_python

    python = python_package()
    path = place.folder / python.file
    path.write_bytes(python.content)
    loader = system_loader(base_layer(rig), place.folder / "base", more=place.folder / "python/home/lib")
    found = unpacked_python(path, python.file, place.folder / "python", place.target(), loader)
    program = "import resource, sys; from importlib.util import MAGIC_NUMBER as m; print(sys.prefix, m.hex())"
    done = subprocess.run([*found.argv, "-c", program], env=dict(found.env), capture_output=True, text=True, cwd="/")
    assert done.stdout == f"{place.folder}/python/home {importlib.util.MAGIC_NUMBER.hex()}\n", done.stderr
    with pytest.raises(BuildError, match=rf"has no python{X_Y}"):
        empty = package("python", PYTHON, {"bin/other": "x"})
        path.write_bytes(empty.content)
        unpacked_python(path, empty.file, place.folder / "none", place.target(), loader)

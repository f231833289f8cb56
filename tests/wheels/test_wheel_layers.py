"""What a wheel becomes: files at their places, bytecode, and what the installer adds."""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import json
import marshal
import os
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from package_index import PackageIndex, serving
from wheelmaker import Install, Said, contents, lock, locked, publish, target, wheel

from hpcbinder.catalog import dump
from hpcbinder.config import SiteConfig
from hpcbinder.errors import BuildError, FetchError
from hpcbinder.model import LockedPackage
from hpcbinder.squashfs import Image, Options, merge
from hpcbinder.wheels import Interpreter, WheelStore, host_interpreter
from hpcbinder.wheels.making import Making
from memory import peak, start

X_Y = f"{sys.version_info[0]}.{sys.version_info[1]}"
SITE = f"opt/env/lib/python{X_Y}/site-packages"
TAG = f"cpython-{sys.version_info[0]}{sys.version_info[1]}"


def unpack(layers: list[Path], folder: Path) -> Path:
    """The merged layers' files on disk; the environment's folder."""
    image = folder / "merged.squashfs"
    with image.open("w+b") as file:
        merge(layers, file)
    with Image.open(image) as opened:
        for path, node in opened.walk():
            if node.kind == "directory":
                (folder / path).mkdir(exist_ok=True)
            else:
                (folder / path).write_bytes(opened.read(path))
                (folder / path).chmod(node.mode)
    return folder / "opt/env"


def test_files_are_where_the_format_says(package_index: PackageIndex, install: Install) -> None:
    data = "my_pack-1.0.data"
    file = wheel(
        "my-pack",
        files={
            "my_pack/__init__.py": "def main():\n    return 3\n",
            "my_pack/tool": "a program",
            f"{data}/purelib/pure.py": "",
            f"{data}/platlib/plat.so": b"\x7fELF",
            f"{data}/scripts/mine": "#!python -u\nprint(1)\n",
            f"{data}/scripts/shell": "#!/bin/sh\n",
            f"{data}/data/share/thing.txt": "x",
            f"{data}/data/lib64/pkgconfig/a.pc": "x",
            f"{data}/headers/my.h": "x",
            "my_pack-1.0.dist-info/entry_points.txt": "[console_scripts]\ndo-it = my_pack:main [extra]\n"
            "[gui_scripts]\nwin=my_pack.sub:Class.run\n[other]\nshell text = $(touch /tmp/x)\n",
            "my_pack-1.0.dist-info/INSTALLER": "somebody",
            "my_pack-1.0.dist-info/direct_url.json": "{}",
        },
        modes={"my_pack/tool": 0o100700},
    )
    publish(package_index, file)
    (layer,) = install(locked(file))
    found = contents(layer)
    info = f"{SITE}/my_pack-1.0.dist-info"
    assert sorted(found) == sorted(
        [
            "opt/env/bin/do-it",
            "opt/env/bin/mine",
            "opt/env/bin/shell",
            "opt/env/bin/win",
            f"opt/env/include/site/python{X_Y}/my-pack/my.h",
            "opt/env/lib/pkgconfig/a.pc",
            "opt/env/share/thing.txt",
            f"{SITE}/my_pack/__init__.py",
            f"{SITE}/my_pack/__pycache__/__init__.{TAG}.pyc",
            f"{SITE}/my_pack/tool",
            f"{SITE}/__pycache__/pure.{TAG}.pyc",
            f"{SITE}/plat.so",
            f"{SITE}/pure.py",
            *(f"{info}/{name}" for name in ("INSTALLER", "METADATA", "RECORD", "REQUESTED", "WHEEL")),
            f"{info}/entry_points.txt",
        ]
    )
    executable = {path for path, (mode, _) in found.items() if mode == 0o755}
    assert executable == {
        *(f"opt/env/bin/{name}" for name in ("do-it", "mine", "shell", "win")),
        f"{SITE}/my_pack/tool",
    }
    assert {mode for mode, _ in found.values()} == {0o644, 0o755}
    assert found["opt/env/bin/mine"][1] == b"#!/opt/env/bin/python\nprint(1)\n"
    assert found["opt/env/bin/shell"][1] == b"#!/bin/sh\n"
    assert b"from my_pack.sub import Class\n" in found["opt/env/bin/win"][1]
    assert b"sys.exit(Class.run())\n" in found["opt/env/bin/win"][1]
    assert found[f"{info}/INSTALLER"][1] == b"hpcbinder\n"
    record = {row[0]: row[1:] for row in csv.reader(found[f"{info}/RECORD"][1].decode().splitlines())}
    assert {os.path.normpath(f"{SITE}/{path}") for path in record} == set(found)
    assert record[f"__pycache__/pure.{TAG}.pyc"] == ["", ""]
    assert record["../../../share/thing.txt"][1] == "1"
    with Image.open(layer) as image:
        nodes = dict(image.walk())
    assert {(node.uid, node.gid, node.mtime) for path, node in nodes.items() if path > "opt/env/a"} == {
        (0, 0, 1577836800)
    }


def test_commands_run_and_packages_are_known(package_index: PackageIndex, install: Install, tmp_path: Path) -> None:
    file = wheel(
        files={
            "pack.py": "def main():\n    print('ran')\n    return 3\n",
            "pack-1.0.dist-info/entry_points.txt": "[console_scripts]\nrun-pack = pack:main\n",
        }
    )
    publish(package_index, file)
    # Deeper than a kernel reads a script's first line.
    deep = tmp_path / "/".join(["deeper-and-deeper"] * 8)
    deep.mkdir(parents=True)
    (deep / "python").symlink_to(sys.executable)
    layers = install(locked(file), where=target(executable=f"{deep}/python"))
    assert len(f"#!{deep}/python") > 127
    prefix = unpack(layers, tmp_path)
    packages = prefix / f"lib/python{X_Y}/site-packages"
    env = {"PYTHONPATH": str(packages), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run([prefix / "bin/run-pack"], env=env, capture_output=True, text=True)
    assert (ran.stdout, ran.returncode) == ("ran\n", 3)
    (known,) = importlib.metadata.distributions(path=[str(packages)])
    assert (known.metadata["Name"], known.version, known.read_text("INSTALLER")) == ("pack", "1.0", "hpcbinder\n")
    assert all(path.locate().exists() for path in known.files or [])


def test_pip_has_its_numbered_command_and_nobody_else(package_index: PackageIndex, install: Install) -> None:
    # Checked against uv and pip: both make it beside pip3.
    def commands(name: str) -> set[str]:
        points = "[console_scripts]\npip = tool:main\npip3 = tool:main\n"
        files = {"tool.py": "def main(): ...\n", f"{name}-1.0.dist-info/entry_points.txt": points}
        file = wheel(name, files=files)
        publish(package_index, file)
        (layer,) = install(locked(file))
        with Image.open(layer) as image:
            return {path.removeprefix("opt/env/bin/") for path, _ in image.walk() if path.startswith("opt/env/bin/")}

    assert commands("pip") == {"pip", "pip3", f"pip{X_Y}"}
    assert commands("pack") == {"pip", "pip3"}


def test_bytecode_is_the_interpreters_own(package_index: PackageIndex, install: Install) -> None:
    source = "# -*- coding: latin-1 -*-\nNAME = '\xe9'\n".encode("latin-1")
    file = wheel(
        files={
            "good.py": source,
            "bad.py": "def f(:\n",
            "deep.py": "(" * 50_000 + "1",
            f"__pycache__/good.{TAG}.pyc": b"what the wheel brings is not what runs",
            "pack-1.0.data/data/share/example.py": "x = 1\n",
        }
    )
    publish(package_index, file)
    (layer,) = install(locked(file))
    found = contents(layer)
    made = sorted(path for path in found if path.endswith(".pyc"))
    assert made == [f"{SITE}/__pycache__/good.{TAG}.pyc"]
    pyc = found[made[0]][1]
    assert pyc[:4] == importlib.util.MAGIC_NUMBER
    assert pyc[4:16] == b"\1\0\0\0" + importlib.util.source_hash(source)
    code = marshal.loads(pyc[16:])
    assert code.co_filename == f"/{SITE}/good.py"
    names: dict[str, str] = {}
    exec(code, names)
    assert names["NAME"] == "\xe9"


def test_the_same_bytes_whoever_makes_them(package_index: PackageIndex, install: Install, folder: Path) -> None:
    sources = {f"pack/m{number}.py": f"def f{number}(a, b={{'x', 'y', {number}}}): return a\n" for number in range(250)}
    file = wheel(files={**sources, "pack/large.bin": os.urandom(1 << 20)})
    publish(package_index, file)
    (layer,) = install(locked(file), jobs=1)
    first = layer.read_bytes()
    layer.unlink()
    assert install(locked(file), jobs=5) == [layer]
    assert layer.read_bytes() == first


def test_an_interpreter_of_the_image_where_this_machine_has_none(
    package_index: PackageIndex, install: Install, folder: Path
) -> None:
    file = wheel(files={"pack.py": "x = 1\n"})
    publish(package_index, file)
    # What bytecode a candidate makes cannot be known without asking it.
    early = target(python=f"{X_Y}.0rc1")
    assert host_interpreter(early) is None
    with pytest.raises(BuildError, match=f"nothing here makes bytecode for Python {X_Y}.0rc1"):
        install(locked(file), where=early)
    asked = []

    def interpreter() -> Interpreter:
        asked.append(1)
        return Interpreter((sys.executable, "-s", "-S", "-B"))

    (layer,) = install(locked(file), where=early, interpreter=interpreter)
    assert f"{SITE}/__pycache__/pack.{TAG}.pyc" in contents(layer)
    assert install(locked(file), where=early, interpreter=interpreter) == [layer]
    assert asked == [1]


def test_an_interpreter_of_other_bytecode_is_not_used(
    package_index: PackageIndex, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = wheel(files={"pack.py": "x = 1\n"})
    publish(package_index, file)
    monkeypatch.setattr("hpcbinder.wheels.store.host_interpreter", lambda target: None)
    other = "3.10.1" if sys.version_info[:2] != (3, 10) else "3.12.1"
    with pytest.raises(BuildError, match=rf"makes bytecode \d+, Python {other} wants \d+"):
        install(locked(file), where=target(python=other), interpreter=lambda: Interpreter((sys.executable, "-S")))
    with pytest.raises(BuildError, match="/bin/false does not run here as a Python"):
        install(locked(file), where=target(python=other), interpreter=lambda: Interpreter(("/bin/false",)))


def test_of_two_wheels_with_one_file_stays_what_pip_leaves(
    package_index: PackageIndex, install: Install, said: Said, tmp_path: Path
) -> None:
    files = [
        wheel(name, files={"shared.py": f"OF = '{name}'\n", f"{name}.py": "", f"{name}-1.0.data/scripts/tool": name})
        for name in ("bbb", "aaa", "ccc")
    ]
    publish(package_index, *files)
    layers = install(*map(locked, files))
    prefix = unpack(layers, tmp_path)
    wheels = tmp_path / "files"
    wheels.mkdir()
    for file in files:
        (wheels / file.name).write_bytes(file.content)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("".join(f"{name}==1.0\n" for name in ("bbb", "aaa", "ccc")))
    theirs = tmp_path / "theirs"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", f"--find-links={wheels}"]
        + ["--prefix", theirs, "--ignore-installed", "-r", requirements],
        env={**os.environ, "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": ""},
        check=True,
    )
    (shared,) = theirs.rglob("shared.py")
    (tool,) = theirs.rglob("tool")
    assert (prefix / f"lib/python{X_Y}/site-packages/shared.py").read_bytes() == shared.read_bytes()
    assert (prefix / "bin/tool").read_bytes() == tool.read_bytes()
    assert "bin/tool is in aaa and bbb and ccc; aaa's stays" in said.lines
    assert [line for line in said.lines if f"lib/python{X_Y}/site-packages/shared.py is in" in line]


def test_a_file_from_elsewhere_says_where_it_comes_from(
    package_index: PackageIndex, install: Install, folder: Path
) -> None:
    file = wheel()
    with serving(PackageIndex()) as elsewhere:
        publish(elsewhere, file)
        url = elsewhere.url.replace("/simple", f"/files/{file.name}")
        package = locked(file, url=url)
        with pytest.raises(FetchError, match="pack: .*127.0.0.1.* is not"):
            install(package)
        (layer,) = install(package, hosts=["127.0.0.1"])
    found = json.loads(contents(layer)[f"{SITE}/pack-1.0.dist-info/direct_url.json"][1])
    assert found == {"url": url, "archive_info": {"hash": f"sha256={file.sha256}", "hashes": {"sha256": file.sha256}}}
    assert not package_index.requests


def test_a_wheel_larger_than_memory_should_be(package_index: PackageIndex, install: Install) -> None:
    file = wheel(files={"large.bin": os.urandom(1 << 20) * 96}, method=zipfile.ZIP_STORED)
    publish(package_index, file)
    before = start()
    (layer,) = install(locked(file))
    assert peak() - before < (64 << 10)
    assert layer.stat().st_size > 96 << 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory in another way")
def test_threads_do_not_keep_memory_each(package_index: PackageIndex, tmp_path: Path) -> None:
    wheels = [wheel(f"pack-{number}", files={"pack.py": "x = 1\n"}) for number in range(12)]
    publish(package_index, *wheels)
    (tmp_path / "lock.json").write_bytes(dump({"locks": (lock(*map(locked, wheels)),)}))
    program = """
import ctypes, sys
from pathlib import Path
from wheelmaker import target
from hpcbinder.config import SiteConfig
from hpcbinder.lock import read_locks
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Options
from hpcbinder.wheels import WheelStore

folder = Path(sys.argv[1])
(lock,) = read_locks(folder / "lock.json")
store = WheelStore(folder / "wheels", SiteConfig(pip_index_url=sys.argv[2]), Options(), Silent())
store.layers(lock, target(), scratch=folder, jobs=4)
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"a"))
libc.malloc_info(0, out)
libc.fclose(out)
"""
    command = [sys.executable, "-c", program, str(tmp_path), package_index.url]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    assert len(list((tmp_path / "wheels/layers").glob("*.squashfs"))) == 12
    assert 1 <= said.count("<heap nr=") <= 2


def test_the_largest_that_came_is_next(
    package_index: PackageIndex, install: Install, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"one": 3000, "two": 1000, "three": 4000, "four": 2000, "five": 5000}
    wheels = [wheel(name, files={"data": os.urandom(size)}) for name, size in sizes.items()]
    publish(package_index, *wheels)
    order: list[str] = []
    squash = Making._squash

    def first_waits(making: Making, package: LockedPackage, fetched: Any) -> None:
        while not order and making._ready.qsize() < len(sizes) - 1:
            time.sleep(0.01)
        order.append(package.name)
        squash(making, package, fetched)

    monkeypatch.setattr(Making, "_squash", first_waits)
    assert len(install(*map(locked, wheels), jobs=1)) == len(sizes)
    assert order[1:] == sorted(order[1:], key=lambda name: -sizes[name])


def test_the_time_of_a_layer_says_when_it_was_used(package_index: PackageIndex, install: Install, folder: Path) -> None:
    first, second = (wheel(tag=tag, files={"pack.py": f"# {tag}\n"}) for tag in ("py3-none-any", "py2.py3-none-any"))
    publish(package_index, first, second)
    package = locked(first, second)
    (layer,) = install(package)
    kept = [layer, *folder.glob("chosen/*.json"), *folder.glob("*.whl")]
    assert len(kept) == 3
    for path in kept:
        os.utime(path, (0, 0))
    assert install(package) == [layer]
    # Of a layer that is there the wheel is of no use.
    assert [path.stat().st_mtime > 0 for path in kept] == [True, True, False]
    layer.unlink()
    assert install(package) == [layer]
    assert all(path.stat().st_mtime > 0 for path in kept)


def test_a_site_below_has_it_already(package_index: PackageIndex, install: Install, folder: Path, said: Said) -> None:
    one, two = wheel("one"), wheel("two")
    publish(package_index, one, two)
    (layer,) = install(locked(one))
    site = folder.rename(folder.parent / "site")
    package_index.requests.clear()
    layers = install(locked(one), locked(two), below=[site])
    assert layers == [next((folder / "layers").glob("*.squashfs")), site / "layers" / layer.name]
    assert not [path for path in package_index.requests if "/one" in path]
    shutil.rmtree(site / "layers")
    store = WheelStore(folder, SiteConfig(pip_index_url="http://127.0.0.1:9/"), Options(), said, below=[site])
    # The wheel itself does as well, and so does who chose it.
    assert store.layers(lock(locked(one)), target(), scratch=folder.parent / "scratch")

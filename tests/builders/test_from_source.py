"""Packages without wheels, built by an ordinary user without an engine: in a real Apptainer, on a real base."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from base_layer import OPTIONS, base_layer
from package_index import PackageIndex, serving

from hpcbinder.squashfs import Image, merge, write_layer
from rig import Apptainer, Dockerd, Rig, User
from rig.githttp import commit_folder, serve

HERE = Path(__file__).parent
TOGETHER = {"together": ["requirements.txt"], "limits": ["constraints.txt"]}
ALONE = {"alone": "requirements.txt"}
SITE = "/opt/env/lib/python3.11/site-packages"

BACKEND = """\
import base64, hashlib, os, zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    content = {
        "mine.py": open("mine.py").read(),
        "mine-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: mine\\nVersion: 1.0\\n",
        "mine-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    rows = ""
    for path, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows += f"{path},sha256={digest},{len(text.encode())}\\n"
    content["mine-1.0.dist-info/RECORD"] = rows + "mine-1.0.dist-info/RECORD,,\\n"
    with zipfile.ZipFile(os.path.join(directory, "mine-1.0-py3-none-any.whl"), "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)
    return "mine-1.0-py3-none-any.whl"
"""

PROJECT = {
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    "backend.py": BACKEND,
    "mine.py": "VALUE = 1\n",
}


@dataclass(frozen=True)
class Room:
    """Where packages are built.

    Attributes:
        folder: The user's.
        base: Debian, squashed.
        bases: Where it is kept as engines have it.
    """

    folder: Path
    base: Path
    bases: Path
    index: PackageIndex
    user: User
    apptainer: Apptainer

    def install(
        self,
        lines: Sequence[str] = (),
        sources: Mapping[str, Any] = TOGETHER,
        *,
        store: str = "store",
        site: Sequence[str] = (),
        files: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        runtime: bool = True,
        system: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        dockerd: Dockerd | None = None,
    ) -> dict[str, Any]:
        """What `source_entry` tells, run by the user; or by root, with Docker and no Apptainer."""
        folder = self.folder / "repository"
        folder.mkdir(exist_ok=True)
        for name, text in {"README": "", **(files or {})}.items():
            (folder / name).write_text(text)
        told = {
            "store": str(self.folder / store),
            "site": [str(self.folder / each) for each in site],
            "base": str(self.base),
            "folder": str(folder),
            "sources": sources,
            "system": list(system),
            "env": dict(env or {}),
            "data": {"requirements.txt": "".join(f"{line}\n" for line in lines), "constraints.txt": "", **(data or {})},
        }
        path = "/usr/bin:/bin:/usr/sbin:/sbin"
        environment = {
            "PATH": f"{self.apptainer.bin}:{path}" if runtime else path,
            "PYTHONPATH": f"{HERE.parent}:{HERE.parents[1]}",
            "HPCBINDER_SITE_PIP_INDEX_URL": self.index.url,
            "HPCBINDER_SOURCE_HOSTS": "127.0.0.1",
            "SECRET_TOKEN": "hush",
        }
        command = [sys.executable, "-B", str(HERE / "source_entry.py")]
        if dockerd is None:
            done = self.user.run([*command, json.dumps(told)], env=environment, check=False)
        else:
            environment |= {**dockerd.environment, "PATH": f"{Path(dockerd.client).parent}:{path}"}
            told |= {"docker": dockerd.host, "bases": str(self.bases)}
            done = subprocess.run(
                [*command, json.dumps(told)], env=environment, check=False, capture_output=True, text=True, timeout=600
            )
        assert done.returncode == 0, done.stderr[-4000:]
        answer = json.loads(done.stdout)
        assert answer.pop("left") == []
        assert isinstance(answer, dict)
        return answer


@pytest.fixture(scope="module")
def room(rig: Rig, apptainer: Apptainer) -> Iterator[Room]:
    with tempfile.TemporaryDirectory(prefix="hpcbinder-test-") as name, serving(PackageIndex()) as index:
        folder = Path(name)
        rig.user.own(folder)
        yield Room(folder, base_layer(rig), rig.folder / "bases", index, rig.user, apptainer)


def content(layer: str, path: str) -> str:
    with Image.open(Path(layer)) as image:
        return image.read(path, 1 << 20).decode()


def test_a_source_archive_and_what_it_needs(room: Room) -> None:
    """It is built without a network or anything of the person's, once; what it writes elsewhere goes nowhere."""
    setup = """
import os, socket
def get_requires_for_build_wheel(config_settings=None):
    return ["tool"]
for address in (("127.0.0.1", PORT), ("192.0.2.1", 80)):
    try:
        socket.create_connection(address, 20)
        raise SystemExit("a network")
    except OSError as error:
        print("cannot reach", address[0])
print("sees", [name for name in os.environ if "SECRET" in name or name.startswith(("APPTAINER", "SINGULARITY"))])
print("home", os.listdir(os.environ["HOME"]), os.path.exists(USER_HOME))
os.makedirs("/opt/env/lib", exist_ok=True)
open("/opt/env/lib/planted", "w").write("x")
open("/etc/planted", "w").write("x")
"""
    home = f"USER_HOME, PORT = {str(room.user.home)!r}, {urlsplit(room.index.url).port}\n"
    room.index.sdist("slow", "2.0", requires=["extra>=1", "other"], setup=f"{home}{setup}")
    room.index.sdist("slow", "1.0")
    room.index.wheel("extra", "1.5")
    room.index.sdist("other", "1.0")  # has no wheel either, and nobody but `slow` says so
    room.index.wheel("tool")  # wanted by the build, which says so when it is asked

    first = room.install(["slow"])
    assert "error" not in first, first
    assert {each["name"]: each["version"] for each in first["listed"]} == {
        "extra": "1.5",
        "other": "1.0",
        "slow": "2.0",
    }
    said = "\n".join(first["said"])
    assert "cannot reach 127.0.0.1" in said  # where the index is just now
    assert "cannot reach 192.0.2.1" in said
    assert "sees []" in said
    assert "home [] False" in said
    trees: set[str] = set()
    for layer in first["layers"]:
        with Image.open(Path(layer)) as image:
            trees |= {f"/{path}" for path, _ in image.walk()}
    assert f"{SITE}/slow.py" in trees and f"{SITE}/other.py" in trees
    assert not [path for path in trees if "planted" in path]

    again = room.install(["slow"], runtime=False)
    assert again["layers"] == first["layers"]
    assert "slow 2.0: its wheel was built before" in again["said"]


def test_what_is_built_is_of_the_plans_time(room: Room) -> None:
    for version, day in (("1.0", "2023-05-01"), ("2.0", "2025-05-01")):
        room.index.sdist("aged", version, requires=["needed"], uploaded=f"{day}T10:00:00Z")
        room.index.wheel("needed", version, uploaded=f"{day}T10:00:00Z")
    got = room.install(["aged"], env={"UV_EXCLUDE_NEWER": "2023-08-05T23:59:59Z"})
    assert [(each["name"], each["version"]) for each in got["listed"]] == [("aged", "1.0"), ("needed", "1.0")]


def test_nothing_here_builds_it(room: Room) -> None:
    room.index.sdist("never", "1.0")
    answer = room.install(["never"], store="empty", runtime=False)
    assert answer["kind"] == "Unbuildable"
    assert "has to be built, and nothing here runs build steps without an engine" in answer["error"]


def test_an_engine_builds_the_same_where_nothing_else_does(room: Room, dockerd: Dockerd) -> None:
    """Without a network there, too. What fails then is left to a whole step of the engine's, which has one."""
    room.index.sdist("either", "1.0", requires=["needed"])
    room.index.wheel("needed")
    mine = room.install(["either"], store="by-apptainer")
    theirs = room.install(["either"], store="by-docker", dockerd=dockerd)
    assert "error" not in theirs, theirs
    assert "building the wheel of either 1.0, without a network: docker" in theirs["said"]
    assert theirs["listed"] == mine["listed"]
    for one, other in zip(mine["layers"], theirs["layers"], strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes()
    again = room.install(["either"], store="by-docker", dockerd=dockerd)
    assert again["layers"] == theirs["layers"]
    assert "either 1.0: its wheel was built before" in again["said"]

    where: dict[str, Any] = {
        "sources": {"targets": "targets"},
        "data": {"targets": "plain\t.\t\n"},
        "store": "by-docker",
        "dockerd": dockerd,
    }
    (layer,) = room.install(files=PROJECT, **where)["layers"]
    assert content(layer, f"{SITE}/mine.py") == "VALUE = 1\n"
    alone = f"import socket\nassert [name for _, name in socket.if_nameindex()] != ['lo'], 'alone'\n{BACKEND}"
    for _ in range(2):
        answer = room.install(files={**PROJECT, "backend.py": alone}, **where)
        assert answer["kind"] == "Unbuildable" and "AssertionError: alone" in answer["error"]
    wants = "def get_requires_for_build_wheel(config_settings=None):\n    return ['nowhere']"
    room.index.sdist("needs", "1.0", setup=wants)
    for _ in range(2):  # the second time what it wants is known, and the engine has nothing to do before it fails
        answer = room.install(["either", "needs"], store="by-docker", dockerd=dockerd)
        assert answer["kind"] == "Unbuildable" and answer["error"].startswith("needs 1.0: ")


def test_what_somebody_built_stays_theirs(room: Room) -> None:
    """Also where their store is a site's for others: its wheels of the index are taken, what they built is not."""
    room.index.sdist("theirs", "1.0", requires=["common"])
    room.index.wheel("common")
    first = room.install(["theirs"], store="site")
    assert "error" not in first, first
    assert [Path(layer).parts[-3] for layer in first["layers"]] == ["wheels", "built"]
    other = room.install(["theirs"], store="other", site=["site"], runtime=False)
    assert other["kind"] == "Unbuildable" and "has to be built" in other["error"]
    mine = room.install(["theirs"], store="other", site=["site"])
    assert mine["layers"][0] == first["layers"][0]
    assert mine["layers"][1].startswith(f"{room.folder}/other/built/")


def test_a_build_that_fails_says_whose_it_is(room: Room) -> None:
    room.index.sdist("broken", "1.0", setup="raise RuntimeError('no such compiler')")
    wants = "import urllib.request\nurllib.request.urlopen('http://files.example.org/data', timeout=5)"
    room.index.sdist("online", "1.0", setup=wants)
    room.index.sdist("greedy", "1.0", setup="open('/run/hpcbinder/out/big', 'wb').truncate(9 << 30)")
    for name, words in (("broken", "no such compiler"), ("online", "urlopen error"), ("greedy", "File too large")):
        answer = room.install([name])
        assert answer["kind"] == "BuildError"
        assert answer["error"].startswith(f"{name} 1.0: step build of {name} 1.0 failed with exit status 1: ")
        assert words in answer["error"]
        assert "without a network" in answer["hint"]


def test_a_commit_of_a_git_repository(room: Room, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for name, text in PROJECT.items():
        (work / name).write_text(text)
    commit = commit_folder(work, tmp_path / "git" / "mine.git", message="first")
    with serve(tmp_path / "git") as url:
        answer = room.install([f"mine @ git+{url}/mine.git@main"], ALONE)
    assert "error" not in answer, answer
    (layer,) = answer["layers"]
    assert content(layer, f"{SITE}/mine.py") == "VALUE = 1\n"
    assert json.loads(content(layer, f"{SITE}/mine-1.0.dist-info/direct_url.json")) == {
        "url": f"{url}/mine.git",
        "vcs_info": {"vcs": "git", "commit_id": commit, "requested_revision": "main"},
    }


def test_the_repositorys_own_project(room: Room, tmp_path: Path) -> None:
    """It is what uv installs of the same files; and another content is another wheel."""
    targets = {"targets": "plain\t.\t\n"}
    first = room.install(sources={"targets": "targets"}, files=PROJECT, data=targets)
    assert "error" not in first, first
    (layer,) = first["layers"]
    source = tmp_path / "source"
    source.mkdir()
    for name, text in PROJECT.items():
        (source / name).write_text(text)
    import uv

    program = uv.find_uv_bin()
    subprocess.run([program, "venv", "-q", tmp_path / "env"], check=True)
    install = [program, "pip", "install", "-q", "--offline", "--no-deps", "--python", tmp_path / "env", source]
    subprocess.run(install, check=True)
    (theirs,) = (tmp_path / "env" / "lib").glob("python3*/site-packages")
    with Image.open(Path(layer)) as image:
        mine = {path.removeprefix(SITE.lstrip("/") + "/") for path, node in image.walk() if node.kind == "file"}
    made = {str(path.relative_to(theirs)) for path in theirs.rglob("mine*/*")} | {"mine.py"}
    # Bytecode comes with the layer, as do its own notes; uv leaves notes of how it built it.
    mine = {path for path in mine if "__pycache__" not in path and ".wh..wh." not in path}
    assert mine == {path for path in made if not path.startswith("mine-1.0.dist-info/uv_")}
    theirs_alone = {f"mine-1.0.dist-info/{name}" for name in ("INSTALLER", "RECORD", "direct_url.json")}
    for path in mine - theirs_alone:
        assert content(layer, f"{SITE}/{path}") == (theirs / path).read_text(), path
    about = json.loads((theirs / "mine-1.0.dist-info" / "direct_url.json").read_text())
    assert about == {"url": f"file://{source}", "dir_info": {}}
    ours = json.loads(content(layer, f"{SITE}/mine-1.0.dist-info/direct_url.json"))
    assert ours == {"url": "file:///run/hpcbinder/work/source", "dir_info": {}}

    second = room.install(sources={"targets": "targets"}, files={**PROJECT, "mine.py": "VALUE = 2\n"}, data=targets)
    assert content(second["layers"][0], f"{SITE}/mine.py") == "VALUE = 2\n"


INSTALL = """
import sys
from pathlib import Path
from hpcbinder.config import load
from hpcbinder.progress import Silent
from hpcbinder.runtime import workshop

room = Path(sys.argv[1])
(room / "step").mkdir()
script = "apt-get -qq update && apt-get -qq -y install --no-install-recommends tcc"
(room / "step" / "run.sh").write_text(script)
path = "/usr/sbin:/usr/bin:/sbin:/bin"
env = {"PATH": path, "DEBIAN_FRONTEND": "noninteractive"}
run = workshop(load(), Silent()).run
print(run([Path(sys.argv[2])], room / "step", env=env, network=True, log=print, scratch=room))
"""

NATIVE = r'''
import subprocess
# What Python.h has of PyModuleDef (3.11, no debug build): headers and a linker's files are many megabytes more.
CODE = """
struct { long references; void *type, *init; long index; void *copy; char *name, *doc; long size; void *more[5]; }
    module = {1, 0, 0, 0, 0, "native", "compiled", -1, {0}};
void *PyModule_Create2(void *, int);
void *PyInit_native(void) { return PyModule_Create2(&module, 1013); }
"""

def build_wheel(directory, *rest):
    open("native.c", "w").write(CODE)
    subprocess.run(["tcc", "-shared", "-nostdlib", "-o", "native.so", "native.c"], check=True)
    content = {
        "native.cpython-311-x86_64-linux-gnu.so": open("native.so", "rb").read(),
        "native-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: native\nVersion: 1.0\n",
        "native-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp311-cp311-linux_x86_64\n",
    }
    rows = ""
    for path, data in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows += f"{path},sha256={digest},{len(data)}\n"
    content["native-1.0.dist-info/RECORD"] = (rows + "native-1.0.dist-info/RECORD,,\n").encode()
    name = "native-1.0-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as archive:
        for path, data in content.items():
            archive.writestr(path, data)
    return name
'''


def test_one_with_a_compiled_module(room: Room) -> None:
    """With a compiler that the system was given for it, which is no part of what comes of it."""
    sdist = room.index.sdist("native")
    sdist.content = appended(sdist.content, "backend.py", NATIVE.encode())
    without = room.install(["native"], ALONE)
    assert "No such file or directory: 'tcc'" in without["error"]

    place = room.folder / "system"
    place.mkdir()
    room.user.own(place)
    path = f"{room.apptainer.bin}:/usr/bin:/bin:/usr/sbin:/sbin"
    command = [sys.executable, "-B", "-c", INSTALL, place, room.base]
    done = room.user.run(command, env={"PATH": path, "PYTHONPATH": str(HERE.parents[1])}, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
    system = place / "system.squashfs"
    with Path(done.stdout.splitlines()[-1]).open("rb") as stream:
        write_layer(stream, system, OPTIONS)
    system.chmod(0o644)
    answer = room.install(["native"], ALONE, system=[str(system)])
    assert "error" not in answer, answer

    image = place / "image.squashfs"
    with image.open("w+b") as out:
        merge([room.base, *map(Path, answer["layers"])], out)
    image.chmod(0o644)
    program = f"import sys; sys.path.append({SITE!r}); import native; print(native.__doc__)"
    run = [room.apptainer.path, "-s", "exec", image, "/usr/bin/python3", "-c", program]
    assert room.user.run(run, env={"PATH": path}).stdout == "compiled\n"


def appended(archive: bytes, name: str, more: bytes) -> bytes:
    """A tar.gz with text added to one of its files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=out, mode="w:gz") as new:
        for member in old:
            stream = old.extractfile(member)
            assert stream is not None
            text = stream.read() + (more if member.name.endswith(name) else b"")
            member.size = len(text)
            new.addfile(member, io.BytesIO(text))
    return out.getvalue()

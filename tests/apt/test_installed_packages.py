"""Debian packages from Debian's mirror, installed by an ordinary user with Apptainer and by Docker: the same files."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

import pytest

from hpcbinder.bases import BaseImage, ensure_base
from hpcbinder.builders.assembling import Workshops
from hpcbinder.builders.assembling.system import SystemPackages
from hpcbinder.builders.in_engine import EngineWorkshop
from hpcbinder.config import load
from hpcbinder.contract import STEP_DIR
from hpcbinder.convert import LayerCache
from hpcbinder.engine import DockerEngine
from hpcbinder.image import DockerArchive
from hpcbinder.model import Assembly, BaseRef, Stage, Step
from hpcbinder.plan import BASE_VARIANT, load_packs, run_script
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Image, Options, merge, write_layer
from rig import Apptainer, Dockerd, Rig, User

# A program; one that is chosen among alternatives, belongs to a group that comes with it, and acts for that group; one
# that comes with a user; and Python's, which is compiled when it is installed.
PACKAGES = ("plocate", "python3-six", "tcpdump", "tree")

INSTALL = """
import json, sys
from pathlib import Path
from hpcbinder.builders.assembling import Workshops
from hpcbinder.builders.assembling.system import SystemPackages
from hpcbinder.config import load
from hpcbinder.convert import LayerCache
from hpcbinder.errors import HpcbinderError
from hpcbinder.model import Assembly, BaseRef, Stage, Step
from hpcbinder.plan import BASE_VARIANT
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Options

told = json.loads(sys.argv[1])
store, below = Path(told["store"]), [Path(each) for each in told["below"]]

class Heard(Silent):
    lines = []
    def phase(self, phase, text, *_):
        self.lines.append(text)

options = Options(compressor="lz4")
scratch = store / "tmp"
for folder in (store, scratch):
    folder.mkdir(exist_ok=True)
packages = SystemPackages(
    store / "debian",
    [each / "debian" for each in below],
    cache=LayerCache(store / "layers", options, below=[each / "layers" for each in below]),
    site=load().site,
    workshops=Workshops(load(), Heard()),
    options=options,
    scratch=scratch,
    reporter=Heard(),
)
step = Step(Stage.SYSTEM, "apt/install", "", told["script"], data={"packages": told["packages"]},
            assembly=Assembly(system="packages"))
ref = BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", told["variant"])
answer = {"known": packages.known(step, ref, ["base"])}
try:
    path, identity = packages.layer(step, ref, [(Path(told["base"]), "base")])
    answer |= {"path": str(path), "identity": identity}
except HpcbinderError as error:
    answer |= {"error": str(error), "kind": type(error).__name__}
print(json.dumps({**answer, "said": Heard.lines, "left": [each.name for each in scratch.iterdir()]}))
"""


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        self.lines.append(message)


@dataclass(frozen=True)
class Room:
    """What packages are installed with.

    Attributes:
        folder: Open to the user.
        base: Debian, squashed.
        script: Of the step.
    """

    folder: Path
    base: Path
    archive: BaseImage
    script: str
    user: User
    apptainer: Apptainer

    def install(
        self,
        store: str,
        packages: str = "\n".join(PACKAGES),
        *,
        below: tuple[str, ...] = (),
        runtime: bool = True,
        network: bool = True,
        **env: str,
    ) -> dict[str, Any]:
        """What `INSTALL` prints, run by the user."""
        for name in (store, *below):
            (self.folder / name).mkdir(exist_ok=True)
        self.user.own(self.folder / store)
        told = {
            "store": str(self.folder / store),
            "below": [str(self.folder / name) for name in below],
            "base": str(self.base),
            "packages": f"{packages}\n",
            "script": self.script,
            "variant": BASE_VARIANT,
        }
        path = "/usr/bin:/bin:/usr/sbin:/sbin"
        given = {"PATH": f"{self.apptainer.bin}:{path}" if runtime else path, **env}
        command = [sys.executable, "-c", INSTALL, json.dumps(told)]
        done = self.user.run(command, env=given, network=network, cwd=Path(__file__).parents[2])
        answer = json.loads(done.stdout)
        assert answer.pop("left") == []
        assert isinstance(answer, dict)
        return answer

    def image(self, layer: str) -> Path:
        """Of the base and a layer."""
        path = self.folder / f"{Path(layer).parent.parent.name}.squashfs"
        with path.open("w+b") as out:
            merge([self.base, Path(layer)], out)
        path.chmod(0o644)
        return path


@pytest.fixture(scope="module")
def room(rig: Rig, apptainer: Apptainer) -> Iterator[Room]:
    ref = BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", BASE_VARIANT)
    site = load({}, user_file=Path("/nonexistent"), site_file=Path("/nonexistent")).site
    archive = ensure_base(ref, folder=rig.folder / "bases", site=site, reporter=Silent())
    (pack,) = (pack for pack in load_packs() if pack.name == "apt")
    with tempfile.TemporaryDirectory(prefix="hpcbinder-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        base = folder / "base.squashfs"
        for _, stream in DockerArchive(archive.archive).layers(archive.config.diff_ids):
            write_layer(stream, base, Options(compressor="lz4"))
        base.chmod(0o644)
        yield Room(folder, base, archive, (pack.folder / "install.sh").read_text(), rig.user, apptainer)


@pytest.fixture(scope="module")
def installed(room: Room) -> dict[str, Any]:
    answer = room.install("store")
    assert "error" not in answer, answer
    return answer


def entry(member: tarfile.TarInfo, content: Any) -> tuple[Any, ...]:
    kind = "directory" if member.isdir() else "symlink" if member.issym() else "file"
    return (kind, f"{member.mode & 0o7777:o}", member.uid, member.gid, int(member.mtime), content)


def exported(stream: IO[bytes]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            content: Any = member.linkname if member.issym() else None
            if member.isreg():
                file = tar.extractfile(member)
                assert file is not None
                content = hashlib.sha256(file.read()).hexdigest()
            elif member.islnk():
                content = found[member.linkname][-1]
            found[member.name.rstrip("/")] = entry(member, content)
    return found


def squashed(path: Path) -> dict[str, Any]:
    found = {}
    with Image.open(path) as image:
        for name, node in image.walk():
            content: Any = node.target
            if node.kind == "file":
                content = hashlib.sha256(image.read(name, 1 << 30)).hexdigest()
            found[name] = (node.kind, f"{node.mode:o}", node.uid, node.gid, node.mtime, content)
    return found


def test_it_is_what_docker_makes(room: Room, installed: dict[str, Any], dockerd: Dockerd) -> None:
    data = {"packages": "\n".join(PACKAGES) + "\n"}
    folder = room.folder / "step"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "packages").write_text(data["packages"])
    (folder / "run.sh").write_text(run_script(Step(Stage.SYSTEM, "apt/install", "", room.script, data=data)))

    def docker(*argv: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([dockerd.client, *argv], env=dockerd.environment, capture_output=True, timeout=300)

    assert docker("load", "-i", str(room.archive.archive)).returncode == 0
    name = "hpcbinder-test-apt"
    docker("rm", "-f", name)
    mounts = ["-v", f"{folder}:{STEP_DIR}/step:ro", "--tmpfs", f"{STEP_DIR}/work:exec"]
    command = ["/bin/sh", "-eu", f"{STEP_DIR}/step/run.sh"]
    try:
        done = docker("run", "--name", name, "--network", "host", *mounts, room.archive.tag, *command)
        assert done.returncode == 0, done.stderr[-3000:]
        with subprocess.Popen(
            [dockerd.client, "export", name], env=dockerd.environment, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            theirs = exported(child.stdout)
    finally:
        docker("rm", "-f", name)
    mine = squashed(room.image(installed["path"]))
    assert mine["usr/bin/plocate"][1:4] == ("2755", 0, 101)
    different = {path for path in theirs.keys() | mine.keys() if theirs.get(path) != mine.get(path)}
    # What Docker mounts into a container that runs.
    its = {"", ".dockerenv", "dev", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab"}
    different = {path for path in different if path not in its and not path.startswith(("dev/", "proc", "sys"))}
    assert not different, sorted((path, theirs.get(path), mine.get(path)) for path in different)[:20]


def test_where_only_an_engine_can_install_them(room: Room, installed: dict[str, Any], dockerd: Dockerd) -> None:
    """They are the very same packages, found, fetched and checked as always, and so the same layer for all."""
    store = room.folder / "by-docker"
    scratch = store / "tmp"
    scratch.mkdir(parents=True)
    ref = BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", BASE_VARIANT)
    engine = DockerEngine(dockerd.host)
    here = load({}, user_file=Path("/nonexistent"), site_file=Path("/nonexistent"))
    said = Said()
    docker = EngineWorkshop(engine, room.archive, known=store / "blobs", scratch=scratch, reporter=said)
    options = Options(compressor="lz4")
    packages = SystemPackages(
        store / "debian",
        [],
        cache=LayerCache(store / "layers", options),
        site=here.site,
        workshops=Workshops(here, said, lambda base: docker),
        options=options,
        scratch=scratch,
        reporter=said,
    )
    data = {"packages": "\n".join(PACKAGES) + "\n"}
    step = Step(Stage.SYSTEM, "apt/install", "", room.script, data=data, assembly=Assembly(system="packages"))
    assert packages.obstacle(ref) is None
    path, identity = packages.layer(step, ref, [(room.base, "base")])
    assert any(
        line.startswith("an engine is needed: Debian packages have to be installed; nothing here runs")
        for line in said.lines
    )
    assert any("installing them on debian:bookworm with docker" in line for line in said.lines)
    assert identity == installed["identity"]
    assert squashed(room.image(str(path))) == squashed(room.image(installed["path"]))
    assert list(scratch.iterdir()) == []


def test_the_programs_run(room: Room, installed: dict[str, Any]) -> None:
    image = room.image(installed["path"])
    script = (
        "tree --version; locate --version; editor=$(readlink /etc/alternatives/locate); echo $editor; getent passwd "
    )
    script += "tcpdump; /usr/bin/python3 -c 'import six; print(six.__version__, six.__cached__)'"
    command = [room.apptainer.path, "-s", "exec", "--containall", image, "/bin/sh", "-euc", script]
    said = room.user.run(command, network=False).stdout
    assert "tree v2" in said
    assert "\n/usr/bin/plocate\n" in said
    assert "\ntcpdump:x:" in said
    assert said.endswith("six.cpython-311.pyc\n")


def test_the_next_one_with_the_same_packages_runs_nothing(room: Room, installed: dict[str, Any]) -> None:
    assert not installed["known"]
    assert any("installing them" in line for line in installed["said"])
    again = room.install("store", runtime=False)
    assert again["known"]
    assert (again["path"], again["identity"]) == (installed["path"], installed["identity"])
    assert not any("fetching" in line or "installing them" in line for line in again["said"])
    # Another store, of a user with no runtime, below which a site has the set.
    other = room.install("mine", below=("store",), runtime=False)
    assert (other["known"], other["path"]) == (True, installed["path"])


def test_without_the_mirror_the_newest_set_of_these_names_is_taken(room: Room, installed: dict[str, Any]) -> None:
    found = room.install("offline", below=("store",), network=False)
    assert found["path"] == installed["path"]
    assert "the newest that were installed are taken" in " ".join(found["said"])


@pytest.fixture
def forger() -> Iterator[str]:
    """A mirror that has what Debian's has, but for one letter of what is signed."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with urllib.request.urlopen(f"http://deb.debian.org{self.path}", timeout=60) as answer:
                content = answer.read().replace(b"Origin: Debian", b"Origin: debian")
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://person:pass-word@127.0.0.1:{server.server_port}/debian"
    server.shutdown()
    server.server_close()


def test_what_debian_did_not_sign_is_not_believed(room: Room, installed: dict[str, Any], forger: str) -> None:
    found = room.install("forged", "hello", below=("store",), HPCBINDER_SITE_APT_MIRROR=forger)
    assert found["kind"] == "FetchError"
    assert "that the mirror has is not signed by a key of Debian's" in found["error"]
    assert "pass-word" not in json.dumps(found)


def test_where_nothing_can_install_them(room: Room, installed: dict[str, Any]) -> None:
    found = room.install("nothing", "plocate", below=("store",), runtime=False)
    assert found["kind"] == "BuildError"
    assert found["error"].startswith("Debian packages (plocate) cannot be installed here: nothing")
    assert "a site's store (store.site) may have them" in found["error"]


def test_a_person_without_subordinate_ids(room: Room, installed: dict[str, Any]) -> None:
    with room.user.without_subids():
        alone = room.install("alone", "plocate", below=("store", "nothing"))
    assert "root-mapped namespace" in " ".join(alone["said"])
    with Image.open(installed["path"]) as one, Image.open(alone["path"]) as other:
        theirs, mine = dict(one.walk()), dict(other.walk())
        assert {(node.uid, node.gid) for node in mine.values()} == {(0, 0)}
        of_it = {path for path in mine if "locate" in path}
        assert of_it == {path for path in theirs if "locate" in path}
        for path in of_it:
            node, there = theirs[path], mine[path]
            assert (node.kind, node.mode, node.mtime) == (there.kind, there.mode, there.mtime), path
            assert node.target == there.target, path
            if node.kind == "file":
                assert one.read(path, 1 << 30) == other.read(path, 1 << 30), path
        assert mine["usr/bin/plocate"].mode == 0o2755
        assert b"plocate:!::" in other.read("etc/gshadow", 1 << 20)


def test_a_name_that_debian_does_not_have(room: Room, installed: dict[str, Any]) -> None:
    found = room.install("errors", "tre", below=("store",))
    assert found["kind"] == "NoSuchPackage"
    assert found["error"].startswith("Debian bookworm has no package 'tre' (near to it: ")

"""Build steps run by an ordinary user in a real Apptainer, and what of them becomes a layer."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uv
from base_layer import base_layer

from hpcbinder.config import Config, RuntimeConfig
from hpcbinder.errors import BuildError, RunError
from hpcbinder.progress import Silent
from hpcbinder.runtime import workshop
from hpcbinder.runtime.changed import write_changed
from hpcbinder.squashfs import Image, Options, merge, write_layer
from rig import Apptainer, Rig, User

RUN = """
import json, sys
from pathlib import Path
from hpcbinder.config import load
from hpcbinder.errors import HpcbinderError
from hpcbinder.progress import Silent
from hpcbinder.runtime import workshop

told = json.loads(sys.argv[1])
room = Path(told["room"])
step = room / "step"
step.mkdir(parents=True, exist_ok=True)
(step / "run.sh").write_text(told["script"])
said = []
def log(line):
    said.append(line)
    if told["aloud"]:
        print(line, flush=True)
answer = {}
try:
    found = workshop(load(), Silent())
    answer = {"description": found.description, "fakeroot": found.fakeroot}
    tar = found.run([Path(told["base"])], step, env={"PATH": "/usr/bin:/bin", "GREETING": "it's $HOME"}, network=False,
                    log=log, scratch=room, title="pack/step", site={"token": b"hush-hush"}, hidden=["hush-hush"],
                    several_ids=told["several"])
    answer["tar"] = str(tar)
except HpcbinderError as error:
    answer |= {"error": str(error), "kind": type(error).__name__}
print(json.dumps({**answer, "said": said, "left": sorted(path.name for path in room.iterdir())}))
"""

CHANGES = """\
umask 022
echo "greeting: $GREETING, home: ${HOME-none}"
env | cut -d= -f1 | sort | tr '\\n' ' '; echo
cat /run/hpcbinder/site/token; echo
test -x /run/hpcbinder/tools/uv
test -z "$(ls -A /run/hpcbinder/work)" && touch /run/hpcbinder/work/mine
if touch /run/hpcbinder/step/planted 2>/dev/null; then echo "writes"; fi
if mount -o remount,rw,bind /run/hpcbinder/tools 2>/dev/null; then echo "remounted"; fi
rm -rf /run/mount  # a note of mount(8)
echo "uv: $(stat -c %d:%i /run/hpcbinder/tools/uv)"
ls -d "$SEEN" 2>/dev/null || echo "not seen"
test "$(tail -n +2 /proc/net/route)" = ""
mkdir -p /opt/new/empty /opt/shut
echo text >/opt/new/file
ln /opt/new/file /opt/new/again
ln -s /etc/passwd /opt/new/link
ln -s ../../../../../../etc /opt/new/out
mkfifo /opt/new/pipe
cp /bin/true /opt/new/setuid && chmod 4755 /opt/new/setuid
touch "/opt/new/a
b" "/opt/new/$(printf '\\377')" /opt/shut/secret
chmod 0 /opt/shut/secret /opt/shut
rm /bin/true
rm -r /usr/share/perl && mkdir /usr/share/perl && echo mine >/usr/share/perl/mine
chmod 700 /usr/games
touch /etc/shadow-of-mine && rm /etc/shadow-of-mine
mkdir /run/hpcbinder/elsewhere && touch /run/hpcbinder/elsewhere/file
mknod /opt/new/null c 1 3 2>/dev/null || :
"""


@dataclass(frozen=True)
class Room:
    """Where steps are run.

    Attributes:
        folder: The user's.
        base: Debian, squashed.
    """

    folder: Path
    base: Path
    user: User
    apptainer: Apptainer

    def command(self, script: str, *, several: bool = False, aloud: bool = False) -> list[str]:
        told = {
            "room": str(self.folder),
            "base": str(self.base),
            "script": f"SEEN={self.user.home}\n{script}",
            "several": several,
            "aloud": aloud,
        }
        return [sys.executable, "-B", "-c", RUN, json.dumps(told)]

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.apptainer.bin}:/usr/bin:/bin:/usr/sbin:/sbin"
        return {
            "PATH": path,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "SECRET": "x",
            "APPTAINER_BIND": "/srv:/mnt",
        }

    def run(self, script: str, *, several: bool = False) -> dict[str, Any]:
        done = self.user.run(self.command(script, several=several), env=self.environment, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer


@pytest.fixture(scope="module")
def room(rig: Rig, apptainer: Apptainer) -> Iterator[Room]:
    with tempfile.TemporaryDirectory(prefix="hpcbinder-test-") as name:
        folder = Path(name)
        rig.user.own(folder)
        yield Room(folder, base_layer(rig), rig.user, apptainer)


@pytest.mark.parametrize("several", [False, True])
def test_what_a_step_changes(room: Room, several: bool) -> None:
    answer = room.run(CHANGES + ("chown 3:4 /opt/new/file\n" if several else ""), several=several)
    assert "error" not in answer, answer
    assert answer["fakeroot"]
    said = answer["said"]
    assert said[0] == "pack/step"
    assert "pack/step | greeting: it's $HOME, home: none" in said  # nothing is replaced on the way in
    assert "pack/step | GREETING PATH PWD " in "\n".join(f"{line} " for line in said)
    assert "pack/step | ***" in said
    assert "pack/step | not seen" in said
    assert "pack/step | writes" not in said
    # Root of several ids keeps what it takes to write to any of its mounts: none of them is the person's.
    assert several or "pack/step | remounted" not in said
    about = Path(uv.find_uv_bin()).stat()
    (place,) = (line for line in said if line.startswith("pack/step | uv: "))
    assert not place.endswith(f":{about.st_ino}")
    assert answer["left"] == ["step", Path(answer["tar"]).name]
    with tarfile.open(answer["tar"], errors="surrogateescape") as tar:
        found = {member.name: member for member in tar}
    Path(answer["tar"]).unlink()
    owner = (3, 4) if several else (0, 0)
    for name, member in found.items():
        mine = owner if name in ("opt/new/file", "opt/new/again") else (0, 0)
        assert (member.uid, member.gid) == mine, name
    gone = {"usr/bin/.wh.true", "usr/share/perl/.wh..wh..opq"}
    made = {"a\nb", "\udcff", "empty", "file", "again", "link", "out", "pipe", "setuid"}
    assert set(found) == {
        *(".", "opt", "opt/new", "opt/shut", "opt/shut/secret"),
        *(f"opt/new/{name}" for name in made),
        *("usr", "usr/bin", "usr/games", "usr/share", "usr/share/perl", "usr/share/perl/mine"),
        *gone,
    }
    assert {name: found[name].mode for name in ("opt/shut", "opt/shut/secret", "usr/games", "opt/new/setuid")} == {
        "opt/shut": 0,
        "opt/shut/secret": 0,
        "usr/games": 0o700,
        "opt/new/setuid": 0o4755,
    }
    hard = {found["opt/new/file"].type, found["opt/new/again"].type}
    assert hard == {tarfile.REGTYPE, tarfile.LNKTYPE}
    assert found["opt/new/link"].linkname == "/etc/passwd"
    assert found["opt/new/pipe"].isfifo()
    # Folders that only lead to what changed have the time they had.
    with Image.open(room.base) as image:
        node = image.lookup("/usr")
        assert node is not None
        assert found["usr"].mtime == node.mtime


def test_a_step_that_fails(room: Room) -> None:
    answer = room.run("echo building; echo 'error: https://me:secret@example.org/ is gone'; exit 3\n")
    assert answer["kind"] == "BuildError"
    assert answer["error"].startswith("step pack/step failed with exit status 3: ")
    assert answer["error"].endswith("error: https://***@example.org/ is gone")
    assert not [name for name in answer["left"] if name.startswith("workshop")]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_us(room: Room, end: signal.Signals) -> None:
    script = "setsid sh -c 'sleep 4321 & echo ready; wait' & sleep 4322\n"
    command = room.user.command(room.command(script, aloud=True))
    env = room.user.environment(room.environment)
    child = subprocess.Popen(command, env=env, cwd=room.user.home, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert any("ready" in line for line in child.stdout)
        child.send_signal(end)
        child.wait(60)
    finally:
        child.kill()
        child.communicate()
    deadline = time.monotonic() + 60
    while room.user.processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not room.user.processes()


def test_there_is_no_apptainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="Apptainer is not installed"):
        workshop(Config(runtime=RuntimeConfig()), Silent())


def test_an_apptainer_that_cannot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in: no machine of ours forbids user namespaces to ordinary users outside of a chroot."""
    program = tmp_path / "apptainer"
    said = "FATAL:   could not use fakeroot: user namespaces are not allowed"
    version = '[ "$1" = --version ] && { echo apptainer version 1.3.0; exit; }'
    program.write_text(f'#!/bin/sh\n{version}\necho "{said}" >&2\nexit 255\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    with pytest.raises(RunError, match="cannot run build steps here: could not use fakeroot: user namespaces"):
        workshop(Config(), Silent())
    program.write_text("#!/bin/sh\necho singularity version 3.8.7\n")
    with pytest.raises(RunError, match=r"singularity version 3\.8\.7 is too old"):
        workshop(Config(), Silent())


def test_root_without_subordinate_ids_is_told_how_to_get_some(apptainer: Apptainer) -> None:
    """Apptainer makes a namespace of one id for everybody but root."""
    ask = (
        "from hpcbinder.config import load\nfrom hpcbinder.errors import RunError\n"
        "from hpcbinder.progress import Silent\nfrom hpcbinder.runtime import workshop\n"
        "try: print(workshop(load(), Silent()).description)\n"
        "except RunError as error: print(error)\n"
    )
    alone = "touch /etc/subuid; mount --bind /dev/null /etc/subuid"
    command = ["unshare", "--mount", "sh", "-euc", f'{alone}; exec "$@"', "sh", sys.executable, "-B", "-c", ask]
    environment = {"PATH": f"{apptainer.bin}:{os.defpath}", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "no mapping entry found in /etc/subuid for root" in done.stdout
    assert "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 root" in done.stdout


def tree(tmp_path: Path) -> Path:
    """A small image to change."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("dir", "dir/sub"):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o755, 1000
            tar.addfile(member)
        member = tarfile.TarInfo("dir/sub/file")
        tar.addfile(member)
    stream.seek(0)
    write_layer(stream, tmp_path / "layer", Options())
    with (tmp_path / "image").open("w+b") as out:
        merge([tmp_path / "layer"], out)
    return tmp_path / "image"


def changed(tmp_path: Path, *members: tarfile.TarInfo) -> dict[str, tarfile.TarInfo]:
    stream, out = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            tar.addfile(member)
    stream.seek(0)
    with Image.open(tree(tmp_path)) as lower:
        write_changed(stream, lower, out, ["/hidden/below"])
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        return {member.name: member for member in tar}


def entry(name: str, kind: bytes = tarfile.DIRTYPE, **more: Any) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode = kind, 0o755
    for key, value in more.items():
        setattr(member, key, value)
    return member


def test_the_kernels_own_marks(tmp_path: Path) -> None:
    """Of overlays of the kernel, which a runtime may use: attributes and devices, no files."""
    opaque = {"SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.user.mine": "kept"}
    found = changed(
        tmp_path,
        entry("."),
        entry("./dir"),
        entry("./dir/sub", pax_headers=opaque),
        entry("./dir/sub/file", tarfile.CHRTYPE),
        entry("./dir/never", tarfile.CHRTYPE),
        entry("./hidden"),
        entry("./hidden/below"),
        entry("./hidden/below/file", tarfile.REGTYPE),
    )
    assert set(found) == {".", "dir", "dir/sub", "dir/sub/.wh..wh..opq", "dir/sub/.wh.file"}
    assert {k: v for k, v in found["dir/sub"].pax_headers.items() if "xattr" in k} == {"SCHILY.xattr.user.mine": "kept"}
    assert found["dir"].mtime == 1000


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (entry("./../../etc/passwd", tarfile.REGTYPE), "holds the name"),
        (entry("/etc/passwd", tarfile.REGTYPE), "holds the name"),
        (entry("./link", tarfile.LNKTYPE, linkname="./../secret"), "holds the name"),
        (entry("./link", tarfile.LNKTYPE, linkname="./nowhere"), "hard link to what is not there"),
        (entry("./dir", pax_headers={"SCHILY.xattr.user.overlay.redirect": "/other"}), "elsewhere"),
    ],
)
def test_a_tar_that_leads_out(tmp_path: Path, member: tarfile.TarInfo, words: str) -> None:
    with pytest.raises(BuildError, match=words):
        changed(tmp_path, member)


def test_a_tar_that_breaks_off(tmp_path: Path) -> None:
    with Image.open(tree(tmp_path)) as lower, pytest.raises(BuildError, match="cannot be read"):
        write_changed(io.BytesIO(b"no tar at all" * 100), lower, io.BytesIO(), [])

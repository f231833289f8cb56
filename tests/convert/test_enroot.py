"""What enroot finds in an image's /etc; what it does with these files is done here by its rules, and by enroot itself
where it is installed (`test_runtimes`)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stacks import MTIME, Layer, MemoryImage

from hpcbinder.convert import convert
from hpcbinder.convert.enroot import environment_file, fstab, rc
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Image, Options

names = st.from_regex(r"\A[A-Z]{3}[A-Z0-9_]{0,5}\Z")
values = st.text(st.sampled_from("ab \t'\"\\${}=#\nÄ"), max_size=12)


def enroot_reads(text: str, host: dict[str, str]) -> dict[str, str]:
    """Variables by the rules of NVIDIA/enroot `src/common.sh` (envsubst, envfmt) and `bin/common.h` (load_environment):
    the host's are put in, and lines are cleaned twice."""
    lines = [
        re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", lambda m: host.get(m[1], ""), line) for line in text.split("\n")[:-1]
    ]
    for _ in range(2):
        lines = [re.sub(r"^[ \t\v\f\r]+", "", line) for line in lines]
        lines = [x for x in lines if re.match(r"[A-Za-z_][A-Za-z0-9_]*=", x) and not x.startswith("ENROOT_")]
        lines = [
            re.sub(r"""^([A-Za-z_][A-Za-z0-9_]*)=["'](.*)["'][ \t\v\f\r]*$""", r"\1=\2", line, flags=re.S)
            for line in lines
        ]
    return dict(line.split("=", 1) for line in lines)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(names, values, max_size=4), st.sampled_from(["", "# mine\nOWN=1\n", "\tOWN=1"]))
def test_enroot_gets_exactly_the_values(env: dict[str, str], own: str) -> None:
    text, lost = environment_file(env, own)
    seen = enroot_reads(text, {"a": "of the host"})
    assert seen == {
        **({"OWN": "1"} if own else {}),
        **{name: value for name, value in env.items() if name not in lost},
    }
    assert all("\n" in env[name] or re.search(r"\$\{\w+\}", env[name]) for name in lost)
    assert environment_file(env, text) == (text, lost)  # again: ours is replaced, not added to


def test_what_enroot_would_bend_is_said() -> None:
    assert environment_file({"A": "x${HOME}y", "B": "1\n2", "ENROOT_MOUNT_HOME": "y", "C": "$HOME"}) == (
        "# hpcbinder, for enroot: rewritten by every conversion\nC=$HOME\n",
        ("A", "B", "ENROOT_MOUNT_HOME"),
    )


def test_volumes_are_mounts_and_nothing_else_is() -> None:
    text = fstab(("/data", "/a b", "/x\n/etc /mnt none bind", "/a/../../etc", "data"), "# kept\n")
    assert text.split("\n")[2:] == ["${ENROOT_ROOTFS}/data /data none x-create=dir,bind,rw,nosuid,nodev", ""]
    assert text.startswith("# kept\n")
    assert fstab(()) == ""


@pytest.mark.parametrize(("workdir", "place"), [("", "/"), ("/w o'rk/new", "/w o'rk/new"), ("-x", "/")])
def test_the_command_begins_where_docker_has_it(tmp_path: Path, workdir: str, place: str) -> None:
    runscript = tmp_path / "run script"
    runscript.write_text('#!/bin/sh\npwd\nprintf "[%s]" "$@"\n')
    runscript.chmod(0o755)
    below = str(tmp_path) if workdir.startswith("/") else ""
    script = rc(below + workdir, str(runscript), local=False)
    done = subprocess.run(["/bin/sh", "-c", script, "rc", "a b", "$x"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{below}{place}\n[a b][$x]"


def test_a_folder_that_cannot_be_is_an_error() -> None:
    script = rc("/dev/null/x", "/bin/true", local=True)
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=False)
    assert done.returncode == 1


def converted(tmp_path: Path, *layers: Layer, **config: object) -> Image:
    tmp_path.mkdir(exist_ok=True)
    made = convert(
        MemoryImage(*layers, config=config),
        layers_dir=tmp_path / "layers",
        folder=tmp_path,
        name="x",
        labels={},
        timestamp=MTIME,
        formats=("enroot",),
        options=Options(),
        reporter=Silent(),
    )
    assert made.formats["enroot"].name == "x.sqsh"
    return made.open()


class TestInTheImage:
    def test_files(self, tmp_path: Path) -> None:
        volumes = {"/v": {}, "/none": {}}
        made = converted(tmp_path, Layer().folder("v"), Env=["A=1", "HOME=/root"], WorkingDir="/w", Volumes=volumes)
        with made as image:
            assert enroot_reads(image.read("etc/environment").decode(), {}) == {"A": "1"}
            assert b"}/v /v none" in (mounts := image.read("etc/fstab")) and b"/none" not in mounts
            assert b"cd -- /w" in (script := image.read("etc/rc")) and b". /etc/rc.local" in script
            assert b"/.singularity.d/runscript" in script

    def test_a_persons_own_stay(self, tmp_path: Path) -> None:
        own = Layer().folder("etc").file("etc/environment", b"OWN=\xff\nPATH=/own").file("etc/rc", "#!/bin/rc\n")
        own.file("etc/fstab", "/dev/sda1 / ext4\n").file("etc/rc.local", "exit 0\n")
        with converted(tmp_path, own, Env=["PATH=/bin"]) as image:
            text = image.read("etc/environment")
            assert text.startswith(b"OWN=\xff\nPATH=/own\n# hpcbinder") and text.endswith(b"\nPATH=/bin\n")
            assert image.read("etc/rc") == b"#!/bin/rc\n"
            assert image.read("etc/fstab") == b"/dev/sda1 / ext4\n"
            assert image.read("etc/rc.local") == b"exit 0\n"

    def test_an_init_systems_rc_local_is_not_run(self, tmp_path: Path) -> None:
        with converted(tmp_path, Layer().folder("etc").file("etc/rc.local", "exit 0\n")) as image:
            assert b"rc.local" not in image.read("etc/rc")

    def test_links_and_other_kinds_are_left_alone(self, tmp_path: Path) -> None:
        own = (
            Layer()
            .folder("v")
            .folder("etc")
            .link("etc/environment", "../host")
            .folder("etc/rc")
            .file("etc/fstab", b"#" * 70_000)
        )
        with converted(tmp_path, own, Env=["A=1"], Volumes={"/v": {}}) as image:
            assert image.readlink("etc/environment") == "../host"
            node = image.lookup("etc/rc")
            assert node is not None and node.kind == "directory"
            assert image.read("etc/fstab") == b"#" * 70_000

    def test_of_an_older_conversion_nothing_stays(self, tmp_path: Path) -> None:
        with converted(
            tmp_path / "one", Layer().folder("before"), Env=["BEFORE=1"], WorkingDir="/before", Volumes={"/before": {}}
        ) as first:
            files = {path: first.read(path) for path in ("etc/environment", "etc/fstab", "etc/rc")}
        layer = Layer().folder("etc").folder("after")
        for path, content in files.items():
            layer.file(path, content)
        with converted(tmp_path / "two", layer, Env=["AFTER=1"], WorkingDir="/after", Volumes={"/after": {}}) as second:
            for path in files:
                assert b"after" in (content := second.read(path).lower()) and b"before" not in content
        with converted(tmp_path / "three", layer) as third:
            assert third.read("etc/fstab") == b""

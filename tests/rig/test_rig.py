"""The rig itself: it comes up beside whatever runs here, and when it goes nothing of it is left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from . import Apptainer, Charliecloud, Dockerd, Hub, Rig, RigError, User, glibc, packages
from .apptainer import capabilities
from .fixtures import allowed_skips
from .process import Process, mounts_below
from .user import IDS

CHECKOUT = Path(__file__).parents[2]
PROGRAMS = ("/bin/sh", "/bin/cat", "/bin/ls", "/bin/sleep", "/usr/bin/id")


@pytest.fixture(scope="module")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system of five programs and their libraries, from this machine's."""
    root = tmp_path_factory.mktemp("small") / "root"
    for folder in ("dev", "etc", "home", "mnt", "proc", "run", "sys", "tmp", "var/tmp", "usr/bin"):
        (root / folder).mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    for name in ("passwd", "group", "hosts", "resolv.conf"):
        (root / "etc" / name).touch()
    for program in PROGRAMS:
        shutil.copy(program, root / "usr/bin")
        for library in re.findall(r"(/\S+) \(0x", subprocess.check_output(["ldd", program], text=True)):
            target = root / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
    return root


@pytest.fixture(scope="module")
def squashfs(apptainer: Apptainer, small_root: Path) -> Iterator[Path]:
    """That root as a squashfs image every user can read."""
    with tempfile.TemporaryDirectory(prefix="rig-") as folder:
        Path(folder).chmod(0o755)
        image = Path(folder) / "small.squashfs"
        command = ["mksquashfs", str(small_root), str(image), "-quiet", "-no-progress", "-no-xattrs", "-all-root"]
        subprocess.run(command, check=True, capture_output=True)
        yield image


@pytest.fixture
def own_rig() -> Iterator[Rig]:
    """A rig in a state folder of its own, beside the one that other tests use."""
    if os.geteuid() != 0:
        pytest.skip("rig: a Docker daemon for the tests needs root")
    # pytest's tmp_path is too long for a socket's address.
    folder = Path(tempfile.mkdtemp(prefix="rig-"))
    folder.chmod(0o755)
    rig = Rig(folder)
    with packages.machine():  # nobody else brings a daemon up meanwhile
        yield rig
        rig.down(purge=True)


def machine() -> dict[str, object]:
    """What of a machine a Docker daemon is known to change, besides things that carry its own name."""
    return {
        "docker0": Path("/sys/class/net/docker0").exists(),
        "forwarding": [
            Path(f"/proc/sys/net/ipv4/{name}").read_text() for name in ("ip_forward", "conf/all/forwarding")
        ],
        "etc": {str(path): path.stat().st_mtime_ns for path in Path("/etc/docker").glob("*")},
        "run": [name for name in ("containerd", "docker", "docker.pid", "docker.sock") if Path("/run", name).exists()],
        "services": packages.POLICY.exists(),
    }


def left_of(rig: Rig, bridge: str, cgroup: str) -> list[str]:
    """What is there of a rig's daemon: processes, mounts in any namespace, bridge, cgroups."""
    mounts = set()
    for file in Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):
            mounts |= {line for line in file.read_text(errors="replace").splitlines() if str(rig.folder) in line}
    base = Path("/sys/fs/cgroup")
    groups = [str(path) for path in (*base.glob(f"*{cgroup}"), *base.glob(cgroup.lstrip("/")))]
    links = [bridge] if Path("/sys/class/net", bridge).exists() else []
    return [*processes_of(rig), *sorted(mounts), *links, *groups]


def processes_of(rig: Rig) -> list[str]:
    """Command lines that name the rig's state folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(rig.folder) in line:
                found.append(line)
    return found


def docker(dockerd: Dockerd, *arguments: str, stdin: IO[bytes] | None = None) -> str:
    done = subprocess.run(
        [dockerd.client, *arguments],
        env={"PATH": os.environ["PATH"], **dockerd.environment},
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def start_sleeper(dockerd: Dockerd, root: Path) -> str:
    """An image from the small root, and a container of it that runs for a while."""
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
        docker(dockerd, "import", "-", "small", stdin=tar.stdout)
    return docker(dockerd, "run", "--detach", "small", "/bin/sleep", "1000")


def wait_until_gone(look: Callable[[], list[str]]) -> list[str]:
    """What is still there after a while: a namespace's end takes some milliseconds."""
    end = time.monotonic() + 60
    while (left := look()) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def test_dockerd_comes_up_runs_a_container_and_leaves_nothing(own_rig: Rig, small_root: Path) -> None:
    packages.ensure(("docker.io",))
    before = machine()
    own_rig.up(["dockerd"])
    start_sleeper(own_rig.dockerd, small_root)
    assert docker(own_rig.dockerd, "run", "--rm", "--user", "1234", "small", "/usr/bin/id", "-u") == "1234"
    first = docker(own_rig.dockerd, "info", "--format", "{{.ID}}")
    own_rig.up(["dockerd"])
    assert docker(own_rig.dockerd, "info", "--format", "{{.ID}}") == first, "a second up is not the same daemon"
    assert machine()["forwarding"] == before["forwarding"]
    bridge, cgroup = own_rig.dockerd.bridge, own_rig.dockerd.cgroup
    everything = "\n".join(left_of(own_rig, bridge, cgroup))
    assert all(part in everything for part in ("containerd", "overlay", bridge, cgroup)), everything

    own_rig.down(["dockerd"])
    assert not own_rig.dockerd.up
    assert wait_until_gone(lambda: left_of(own_rig, bridge, cgroup)) == []
    assert machine() == before


def test_a_killed_dockerd_takes_all_with_it_and_comes_up_again(own_rig: Rig, small_root: Path) -> None:
    before = machine()
    own_rig.up(["dockerd"])
    start_sleeper(own_rig.dockerd, small_root)
    bridge, cgroup = own_rig.dockerd.bridge, own_rig.dockerd.cgroup
    process = Process.load(own_rig.folder / "run/dockerd.json")
    assert process is not None
    process.children()[0].signal(signal.SIGKILL)
    assert process.wait(60)
    assert wait_until_gone(lambda: processes_of(own_rig)) == [], "containerd or a container outlived the daemon"
    assert mounts_below(own_rig.folder) == []

    own_rig.up(["dockerd"])
    assert docker(own_rig.dockerd, "image", "ls", "--quiet"), "the data folder is a cache that stays"
    own_rig.down(["dockerd"])
    assert wait_until_gone(lambda: left_of(own_rig, bridge, cgroup)) == []
    assert machine() == before


def test_two_programs_bring_up_one_dockerd(own_rig: Rig) -> None:
    command = [sys.executable, "-B", "-m", "tests.rig", "up", "dockerd"]
    environment = {**os.environ, "HPCBINDER_RIG": str(own_rig.folder)}
    started = [subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.wait(60) for process in started] == [0, 0]
    for process in started:
        assert process.stdout is not None
        process.stdout.close()
    assert len([line for line in processes_of(own_rig) if line.startswith("/usr/sbin/dockerd")]) == 1


def test_borrowed_parts_stop_with_the_last_borrower_unless_brought_up_to_stay(own_rig: Rig) -> None:
    with own_rig.borrowed("dockerd"):
        with own_rig.borrowed("dockerd"):
            assert own_rig.dockerd.up
        assert own_rig.dockerd.up, "another still has it"
    assert not own_rig.dockerd.up
    own_rig.up(["dockerd"])
    with own_rig.borrowed("dockerd"):
        pass
    assert own_rig.dockerd.up


def test_the_state_folder_can_be_too_long_for_a_socket(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("rig: needs root")
    with pytest.raises(RigError, match="too long"):
        Rig(tmp_path / ("x" * 100)).up(["dockerd"])


def test_user_is_an_ordinary_one_with_an_account_only_for_itself(user: User) -> None:
    lines = user.run(["sh", "-c", "id -un; pwd; grep Cap /proc/self/status; ls -A"]).stdout.splitlines()
    assert lines[:2] == [user.name, str(user.home)]
    assert [line.split()[1] for line in lines[2:] if not line.startswith("CapBnd")] == ["0" * 16] * 4
    assert user.name not in Path("/etc/passwd").read_text()
    assert user.run(["cat", "/etc/shadow"], check=False).returncode != 0
    assert "SUDO_UID" not in user.run(["env"]).stdout


def test_users_of_two_sessions_are_two(rig: Rig, user: User) -> None:
    other = Rig(rig.folder)
    try:
        assert (other.user.uid, other.user.home) != (user.uid, user.home)
        sleeper = other.user.popen(["sleep", "1000"])
        (other.user.home / "file").touch()
        while "sleep 1000" not in other.user.processes().values():
            time.sleep(0.01)
        assert "sleep 1000" not in user.processes().values()
        other.user.clean()
        assert sleeper.wait(60) == -signal.SIGKILL
        assert list(other.user.home.iterdir()) == []
        assert sleeper.stdout is not None
        sleeper.stdout.close()
    finally:
        other.close()


def test_what_a_killed_hub_left_is_removed_unless_it_is_another_sessions_by_now(rig: Rig, user: User) -> None:
    """Its record names ids of persons; the id of one was given to `user` since."""
    gone = next(uid for uid in IDS[10:] if not (rig.folder / "users" / str(uid)).exists())
    (rig.folder / "users" / str(gone)).mkdir()
    (user.home / "file").touch()
    hub = Hub(rig.folder, rig.slurm, rig.apptainer, f"left-by-a-test-{os.getpid()}")
    (hub.folder / "private").mkdir(parents=True)
    (hub.folder / "private" / "rig.json").write_text(json.dumps({"accounts": {"alice": gone, "bob": user.uid}}))
    hub.stop()
    assert (user.home / "file").exists()
    assert not (rig.folder / "users" / str(gone)).exists()
    assert not hub.folder.exists()


def test_user_without_network_has_only_lo_and_it_is_up(user: User) -> None:
    program = "import socket; print([n for _, n in socket.if_nameindex()]); socket.create_server(('127.0.0.1', 0))"
    assert user.run(["python3", "-c", program], network=False).stdout.strip() == "['lo']"


@pytest.mark.parametrize("network", [True, False])
def test_apptainer_runs_a_squashfs_image_as_an_ordinary_user(
    apptainer: Apptainer, squashfs: Path, user: User, network: bool
) -> None:
    (user.home / "mine").write_text("at home\n")
    (user.home / "mine").chmod(0o644)
    script = f"id -un; cat {user.home}/mine"
    command = [str(apptainer.path), "--silent", "exec", "--cleanenv", str(squashfs), "sh", "-c", script]
    assert user.run(command, network=network).stdout.splitlines() == [user.name, "at home"]


def test_every_capability_has_its_name() -> None:
    held, missing = capabilities()
    assert len(held) + len(missing) == min(41, int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1)
    assert {"CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"} <= {*held, *missing}


def test_apptainer_runs_a_squashfs_image_as_root(apptainer: Apptainer, squashfs: Path) -> None:
    command = [str(apptainer.path), "--silent", "exec", str(squashfs), "id", "-u"]
    assert subprocess.check_output(command, text=True) == "0\n"


def test_charliecloud_mounts_and_runs_a_squashfs_image(charliecloud: Charliecloud, squashfs: Path, user: User) -> None:
    assert user.run([charliecloud.path, squashfs, "--", "id", "-un"]).stdout.strip() == user.name
    command = [str(charliecloud.path), str(squashfs), "--", "id", "-u"]
    assert subprocess.check_output(command, text=True, env={**os.environ, "USER": "root"}) == "0\n"


def test_only_named_tests_may_skip_in_ci(tmp_path: Path) -> None:
    (tmp_path / "test_skips.py").write_text("import pytest\ndef test_one():\n    pytest.skip('no such thing here')\n")
    (tmp_path / "test_file_skips.py").write_text("import pytest\npytest.skip('nor this', allow_module_level=True)\n")
    (tmp_path / "test_fine.py").write_text(
        "import pytest\n@pytest.mark.xfail\ndef test_known():\n    assert False\ndef test_ok(): ...\n"
    )

    def run(**environment: str) -> str:
        base = {name: value for name, value in os.environ.items() if name != "CI"}
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "rig.fixtures",
                "-c",
                "/dev/null",
                "--rootdir",
                tmp_path,
                "--continue-on-collection-errors",
                tmp_path,
            ],
            env={**base, "PYTHONPATH": str(CHECKOUT / "tests"), "PYTHONDONTWRITEBYTECODE": "1", **environment},
            capture_output=True,
            text=True,
        )
        return done.stdout

    assert "1 passed, 2 skipped, 1 xfailed" in run()
    in_ci = run(CI="true")
    assert "1 failed, 1 passed, 1 xfailed, 1 error" in in_ci
    for reason in ("no such thing here", "nor this"):
        assert f"{reason}\nCI is set, and this test is not on tests/allowed_skips.txt" in in_ci


def test_allowed_skips_are_patterns_with_a_reason() -> None:
    (pattern,) = allowed_skips("# all that may skip\n\ntests/a/test_b.py::test_c[*]  # needs a GPU\n")
    assert pattern.fullmatch("tests/a/test_b.py::test_c[x-1]")
    assert not pattern.fullmatch("tests/a/test_b.py::test_cd")
    with pytest.raises(ValueError, match="allowed_skips.txt:1"):
        allowed_skips("tests/a/test_b.py::test_c\n")


def test_a_zombie_is_dead() -> None:
    with subprocess.Popen(["/bin/sleep", "0.1"]) as child:
        process = Process.of(child.pid)
        assert process.alive
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not reaped
        assert Path(f"/proc/{child.pid}").exists()
        assert not process.alive


def test_a_reused_number_is_another_process(tmp_path: Path) -> None:
    me = Process.of(os.getpid())
    me.save(tmp_path / "me.json")
    assert Process.load(tmp_path / "me.json") == me
    Process(me.pid, me.started - 1, me.boot).save(tmp_path / "me.json")
    assert Process.load(tmp_path / "me.json") is None
    assert Process.load(tmp_path / "nothing.json") is None


def test_adjusting_is_done_once_and_only_to_programs(apptainer: Apptainer, tmp_path: Path) -> None:
    (starter,) = apptainer.bin.parent.glob("root-*/usr/lib/*/apptainer/bin/starter")
    program = Path(shutil.copy(starter, tmp_path))
    glibc.adjust(program)
    once = program.read_bytes()
    assert re.search(rb"\0GLIBC_2.2.5\0", once)
    assert glibc.adjust(program) == []
    assert program.read_bytes() == once
    (tmp_path / "text").write_text("#!/bin/sh\n")
    with pytest.raises(glibc.NotAdjustable, match="not a 64-bit"):
        glibc.adjust(tmp_path / "text")


def test_packages_that_are_there_are_not_asked_for_again() -> None:
    assert packages.installed(["dpkg", "no-such-package-at-all"]) == {"dpkg"}
    assert packages.ensure(["dpkg"], optional=["libc-bin"]) == []


def test_a_registry_comes_up_and_goes_and_keeps_its_images(own_rig: Rig) -> None:
    own_rig.up(["registry"])
    host = own_rig.registry.host
    own_rig.up(["registry"])
    assert own_rig.registry.up
    assert own_rig.registry.host == host
    assert len(processes_of(own_rig)) == 1
    image = own_rig.registry.folder / "data/docker/registry/v2/repositories/x"
    image.mkdir(parents=True)
    own_rig.down(["registry"])
    assert not own_rig.registry.up
    assert processes_of(own_rig) == []
    assert image.is_dir()

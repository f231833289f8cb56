"""``scripts/clean-root``: a fresh Debian root with this checkout in it, of which nothing is left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from . import RigError, packages

SCRIPT = Path(__file__).parents[2] / "scripts/clean-root"


def apt_options() -> list[str]:
    """What this machine's apt needs to reach its mirror, for the root's."""
    text = subprocess.check_output(["apt-config", "dump", "--format", '%f "%v";%n'], text=True)
    wanted = ("Acquire::Check-Valid-Until", "Acquire::http::Proxy", "Acquire::https::Proxy")
    lines = [line for line in text.splitlines() if line.split(" ")[0] in wanted]
    return [argument for line in lines for argument in ("--apt-option", line)]


def clean_root(cache: Path, options: Sequence[str], command: str) -> subprocess.CompletedProcess[str]:
    arguments = [str(SCRIPT), "--cache", str(cache), *apt_options(), *options, "--", "sh", "-euc", command]
    return subprocess.run(arguments, capture_output=True, text=True, env={**os.environ, "SECRET": "of this machine"})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        packages.ensure(["git", "mmdebstrap", "util-linux"])
    except RigError as error:
        pytest.skip(f"rig: {error}")
    if os.geteuid() != 0:
        pytest.skip("rig: a clean root needs root")
    return tmp_path_factory.mktemp("clean-root")


@pytest.mark.rig
@pytest.mark.heavy
def test_a_command_sees_a_fresh_machine_with_the_checkout_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("certificates\n")
    command = """
        test -e pyproject.toml; pwd; env | grep -c SECRET || true; cat "$PIP_CERT"
        ! command -v python3; ! command -v git; grep -h VERSION_CODENAME /etc/os-release
        echo x > /dev/null; test -c /dev/fuse; test -r /sys/fs/cgroup; test "$(ls /root | wc -l)" = 0
        echo "$TOKEN"; sleep 1000 & unshare --user --map-root-user id -u; exit 7
    """
    before = Path("/proc/self/mountinfo").read_text().count(str(cache))
    done = clean_root(cache, ["--ca", str(tmp_path / "ca.pem"), "--env", "TOKEN=a b"], command)
    expected = ["/src", "0", "certificates", "VERSION_CODENAME=bookworm", "a b", "0"]
    assert (done.stdout.splitlines(), done.returncode) == (expected, 7), done.stderr
    assert Path("/proc/self/mountinfo").read_text().count(str(cache)) == before
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []


@pytest.mark.rig
@pytest.mark.heavy
def test_a_root_can_be_kept_for_a_second_command(cache: Path, tmp_path: Path) -> None:
    kept = ["--root", str(tmp_path / "root")]
    assert clean_root(cache, kept, "echo once > /src/note").returncode == 0
    assert clean_root(cache, kept, "cat /src/note").stdout == "once\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "no command"),
        (["--suite"], "--suite wants a value"),
        (["--sweet", "bookworm", "true"], "no such option: --sweet"),
        (["--ca", "/no/such.pem", "true"], "no such file: /no/such.pem"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_is_made(arguments: list[str], message: str) -> None:
    done = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]

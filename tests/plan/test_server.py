"""The server step's parts: profile.sh and the entrypoint in real shells, the lock, what the plan gets of them."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcbinder.errors import DetectError
from hpcbinder.model import Stage
from hpcbinder.plan import server_step
from hpcbinder.plan.server import PYTHONS

SERVER = Path(__file__).parents[2] / "hpcbinder/plan/server"
SHELLS = [shell for shell in ("dash", "bash", "busybox", "mksh", "zsh") if shutil.which(shell)]

Sourced = Callable[..., dict[str, str]]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    return {"busybox": ["busybox", "sh"], "zsh": ["zsh", "--emulate", "sh"]}.get(request.param, [request.param])


@pytest.fixture
def place(open_tmp_path: Path) -> Path:
    """A folder every user may write to, as /tmp is."""
    open_tmp_path.chmod(0o1777)
    return open_tmp_path


@pytest.fixture
def sourced(shell: list[str]) -> Sourced:
    """Source profile.sh with exactly this environment, under -eu, and return what the environment is then."""

    def run(**environment: str) -> dict[str, str]:
        done = subprocess.run(
            [*shell, "-euc", '. "$0"; echo sourced; env -0', SERVER / "profile.sh"],
            env={"PATH": "/usr/bin:/bin", **environment},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        start, _, text = done.stdout.partition("\n")
        assert start == "sourced"
        return dict(entry.partition("=")[::2] for entry in text.split("\0") if entry)

    return run


def test_everything_points_at_a_private_folder(sourced: Sourced, place: Path) -> None:
    home = place / "home"
    home.mkdir()
    found = sourced(HOME=str(home), TMPDIR=str(place))
    private = place / f"hpcbinder-{os.getuid()}"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    for name in ("RUNTIME", "DATA", "CONFIG"):
        assert found[f"JUPYTER_{name}_DIR"].startswith(f"{private}/")
    for name in ("IPYTHONDIR", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        assert found[name].startswith(f"{private}/")
    assert (found["HOME"], found["TMPDIR"]) == (str(home), str(place))
    assert found["JUPYTERLAB_SETTINGS_DIR"] == f"{home}/.jupyter/lab/user-settings"
    assert not any(name.startswith("_hpcb") for name in found)
    # Bytecode lies beside its source in the image; Python would not look there any more.
    assert "PYTHONPYCACHEPREFIX" not in found


def test_what_is_set_stays(sourced: Sourced, place: Path) -> None:
    mine = {"JUPYTER_RUNTIME_DIR": "/a b", "IPYTHONDIR": "$x", "USER": "me", "LOGNAME": "i", "XDG_CACHE_HOME": "/c"}
    found = sourced(HOME=str(place), TMPDIR=str(place), **mine)
    assert {name: found[name] for name in mine} == mine


def test_the_second_time_finds_the_same_folder(sourced: Sourced, place: Path) -> None:
    first, second = (sourced(HOME=str(place), TMPDIR=str(place)) for _ in range(2))
    assert first == second


def test_a_folder_can_be_chosen(sourced: Sourced, place: Path) -> None:
    chosen = place / "with a blank"
    chosen.mkdir()
    found = sourced(HOME=str(place), TMPDIR=str(place), HPCBINDER_TMPDIR=str(chosen))
    assert found["JUPYTER_RUNTIME_DIR"].startswith(f"{chosen}/hpcbinder-")


def test_a_link_in_the_way_is_not_followed(sourced: Sourced, place: Path) -> None:
    theirs = place / "theirs"
    theirs.mkdir(mode=0o700)
    (place / f"hpcbinder-{os.getuid()}").symlink_to(theirs)
    found = sourced(HOME=str(place), TMPDIR=str(place))
    assert re.match(rf"{place}/hpcbinder-{os.getuid()}\.\w{{6}}/", found["JUPYTER_RUNTIME_DIR"])
    assert list(theirs.iterdir()) == []


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o1777])
def test_a_folder_open_to_others_is_not_trusted(sourced: Sourced, place: Path, mode: int) -> None:
    folder = place / f"hpcbinder-{os.getuid()}"
    folder.mkdir()
    folder.chmod(mode)
    assert not sourced(HOME=str(place), TMPDIR=str(place))["IPYTHONDIR"].startswith(f"{folder}/")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make somebody else's folder")
def test_somebody_elses_folder_is_not_trusted(sourced: Sourced, place: Path) -> None:
    folder = place / "hpcbinder-0"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    assert not sourced(HOME=str(place), TMPDIR=str(place))["IPYTHONDIR"].startswith(f"{folder}/")


def test_a_jobs_tmpdir_that_is_not_there_is_forgotten(sourced: Sourced, place: Path) -> None:
    found = sourced(HOME=str(place), TMPDIR="/nowhere/job123", HPCBINDER_TMPDIR=str(place))
    assert "TMPDIR" not in found


@pytest.mark.parametrize("home", ["", "/nowhere", "/dev/null"])
def test_a_home_that_cannot_be_used_is_replaced(sourced: Sourced, place: Path, home: str) -> None:
    found = sourced(HOME=home, TMPDIR=str(place))
    assert found["HOME"] == f"{place}/hpcbinder-{os.getuid()}/home"
    assert Path(found["HOME"]).is_dir()


def test_a_uid_without_a_name(shell: list[str], place: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    shutil.copy(SERVER / "profile.sh", place)
    (place / "profile.sh").chmod(0o644)
    done = subprocess.run(
        [*shell, "-euc", '. "$0"; echo "$USER $LOGNAME $HOME"; id', place / "profile.sh"],
        env={"PATH": "/usr/bin:/bin", "HOME": "/root", "TMPDIR": str(place)},
        capture_output=True,
        text=True,
        user=12345,
        group=12345,
        extra_groups=[],
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == f"12345 12345 {place}/hpcbinder-12345/home"


# The entrypoint.


@pytest.fixture
def image(open_tmp_path: Path) -> Iterator[Path]:
    """The entrypoint as in an image, but below a folder of the test."""
    for name in ("entrypoint", "profile.sh"):
        text = (SERVER / name).read_text().replace("/opt/hpcbinder", str(open_tmp_path))
        (open_tmp_path / name).write_text(text)
    (open_tmp_path / "entrypoint").chmod(0o755)
    (open_tmp_path / "manifest.json").write_text("{}")
    yield open_tmp_path


def enter(image: Path, *argv: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [image / "entrypoint", *argv],
        env={"PATH": "/usr/bin:/bin", "HOME": str(image), "TMPDIR": str(image), **environment},
        capture_output=True,
        text=True,
    )


def test_arguments_go_through_as_they_are(image: Path) -> None:
    words = ["a b", "", "$HOME", "`id`", "'", '"', "*", "\\", "\n", "-n", "--"]
    done = enter(image, "printf", "<%s>", *words)
    assert (done.stdout, done.stderr) == ("".join(f"<{word}>" for word in words), "")


def test_the_exit_status_is_the_commands(image: Path) -> None:
    assert enter(image, "sh", "-c", "exit 7").returncode == 7


def start_script(image: Path, text: str, mode: int = 0o755) -> dict[str, str]:
    script = image / "start"
    script.write_text(text)
    script.chmod(mode)
    return {"HPCBINDER_START": str(script)}


def test_start_runs_first_and_may_change_the_command(image: Path) -> None:
    environment = start_script(image, '#!/bin/sh\nexport GREETING=hello\nexec "$@" "by start"\n')
    done = enter(image, "sh", "-c", 'echo "$GREETING $1"', "sh", **environment)
    assert done.stdout == "hello by start\n"


@pytest.mark.parametrize(
    "text",
    [
        '#!/bin/bash\nexport A=yes\nexec "$@"\n',
        '#! /usr/bin/env bash\nexport A=yes\nexec "$@"\n',
        '#!/usr/bin/env -S bash -u\nexport A=yes\nexec "$@"\n',
        "#!/usr/bin/python3 -B\nimport os, sys\nos.environ['A'] = 'yes'\nos.execvp(sys.argv[1], sys.argv[1:])\n",
        'export A=yes\nexec "$@"\n',
        'B=(yes no); export A="${B[0]}"; exec "$@"',
    ],
)
def test_start_without_executable_bit_or_first_line(image: Path, text: str) -> None:
    done = enter(image, "sh", "-c", "echo $A", **start_script(image, text, mode=0o644))
    assert (done.stdout, done.stderr) == ("yes\n", "")


def test_an_executable_start_without_first_line(image: Path) -> None:
    done = enter(image, "sh", "-c", "echo $A", **start_script(image, 'export A=yes\nexec "$@"\n'))
    assert done.stdout == "yes\n"


def test_start_runs_once_however_deep(image: Path) -> None:
    environment = start_script(image, '#!/bin/sh\necho started\nexec "$@"\n')
    entrypoint = str(image / "entrypoint")
    assert enter(image, entrypoint, entrypoint, "echo", "done", **environment).stdout == "started\ndone\n"


def test_start_of_another_image_runs(image: Path) -> None:
    environment = start_script(image, '#!/bin/sh\necho started\nexec "$@"\n')
    inner = f"echo '{{\"other\": 1}}' > {image}/manifest.json; exec {image}/entrypoint echo done"
    assert enter(image, "sh", "-c", inner, **environment).stdout == "started\nstarted\ndone\n"


# Login shells.


LOGGED_IN = 'PATH=/usr/local/bin:/usr/bin::/bin:/usr/games:"/opt/b*"; export PATH; . "$0"; echo "$PATH"; env'


def logged_in(shell: list[str], **environment: str) -> str:
    """PATH after a profile like Debian's, in a shell that began with this environment; nothing else is new."""
    program = [shutil.which(shell[0]) or "", *shell[1:]]
    done = subprocess.run(
        [*program, "-euc", LOGGED_IN, SERVER / "login.sh"], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    path, _, seen = done.stdout.partition("\n")
    assert "hpcb" not in seen
    assert f"PATH={path}" in seen.splitlines()
    return path


def test_a_login_shell_has_its_path_back_in_front(shell: list[str]) -> None:
    # As it was, with its spaces and what it has twice; of the profile's, what it lacks.
    before = '/my "own"/$(bin):/opt/env/bin:/usr/bin:/opt/env/bin:/opt/bin:'
    path = logged_in(shell, AAA="\nPATH=/evil", PATH=before, PATH_TOO="/evil", ZZZ="\nPATH=/evil")
    assert path == f"{before}:/usr/local/bin:/bin:/usr/games:/opt/b*"
    assert logged_in(shell, PATH=path) == path


def test_one_that_had_none_has_the_profile_s(shell: list[str]) -> None:
    assert logged_in(shell, AAA="\nPATH=/evil") == "/usr/local/bin:/usr/bin::/bin:/usr/games:/opt/b*"


# The step.


@pytest.mark.parametrize("python", PYTHONS)
def test_the_step_is_the_same_whatever_the_repository(python: str) -> None:
    step = server_step(python)
    assert step.stage is Stage.SERVER
    assert step == server_step(python)
    assert step.reads == ()
    assert not step.runs_repository_code


def test_a_python_the_lock_is_not_for() -> None:
    with pytest.raises(DetectError, match="3.9"):
        server_step("3.9")


def test_the_lock_is_hashed_and_knows_only_pypi() -> None:
    lock = server_step("3.11").data["requirements.lock"]
    entries = re.findall(r"^([a-z0-9-]+)==\S+(.*\\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", lock, re.M)
    names = {name for name, _ in entries}
    assert {"jupyterlab", "jupyterhub", "jupyter-server"} <= names
    assert len(entries) == len(re.findall(r"^[a-z]", lock, re.M))
    assert not {"ipykernel", "ipython"} & names
    assert "://" not in lock
    assert "--find-links" not in lock


@pytest.mark.parametrize("name", ["install.sh", "profile.sh", "login.sh", "entrypoint", "update-lock.sh"])
def test_scripts_are_posix_shell(name: str) -> None:
    subprocess.run(["dash", "-n", SERVER / name], check=True)
    subprocess.run(["bash", "--posix", "-n", SERVER / name], check=True)

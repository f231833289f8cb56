"""Who is answered by the helper outside a container, and what is refused. The commands here are stand-ins that tell
what they are called with; test_workers.py and test_slurm_inside.py have a real Slurm."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcbinder.config import SlurmConfig
from hpcbinder.runtime.launch.values import Helper
from hpcbinder.runtime.launch.workers import Running, offered, shown
from rig import User

STAND_IN = """#!/bin/sh
echo "${0##*/}" "$@" >>%s
pwd >>%s
case ${0##*/} in
sbatch) echo 4711 ;;
squeue) echo '4711|PENDING||Resources'; exit 3 ;;
scontrol) echo 'SlurmctldHost[0]        = here(127.0.0.1)' ;;
esac
"""
PEM = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
VALUES = {
    "python": "/opt/env/bin/python",
    "scheduler": "tls://10.0.0.1:1234",
    "name": "0",
    "threads": "1",
    "memory": "auto",
    "authority": PEM,
    "certificate": PEM,
    "key": PEM,
}
DASK: dict[str, Any] = {"do": "start", "kind": "dask", "values": VALUES, "asked": {"cpus": 1}}
ENGINES = {"python": "/usr/bin/python", "cluster": "1-a", "connection": '{"key": "secret"}'}
CONNECT = """
import contextlib, socket, sys
try:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(sys.argv[1])
        # Who is refused is told so at once, and may be before he has said anything.
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(b'{"do": "jobs"}\\n')
        print(connection.makefile().readline(), end="")
except OSError as error:
    print(type(error).__name__)
"""


class Outside:
    """A helper, and what the commands were that it called."""

    def __init__(self, folder: Path, inside: str = "commands", /, *, environ: Any = (), **more: Any) -> None:
        self.called, self.where = folder / "called", folder / "where"
        programs = folder / "bin"
        programs.mkdir()
        for name in ("sbatch", "scancel", "scontrol", "squeue", "srun"):
            (programs / name).write_text(STAND_IN % (self.called, self.where))
            (programs / name).chmod(0o755)
        own = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(folder), "SLURM_JOB_ID": "1", "TMPDIR": ""}
        own["JUPYTERHUB_API_TOKEN"] = own["JPY_API_TOKEN"] = "secret"
        own |= environ
        reach = {"inside": inside, "asked": {"partition": "site"}}
        description = {"slurm": reach, "image": {"env": {}}, "environment": [], **more}
        helper = offered(description, own, str(folder))
        assert helper is not None
        self.helper: Helper = helper
        self.socket = f"{helper.folder}/socket"

    def ask(self, request: object, descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        text = request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.socket)
            if descriptors:
                socket.send_fds(connection, [text], descriptors)
            else:
                connection.sendall(text)
            answer: dict[str, Any] = json.loads(connection.makefile().readline())
        return answer

    def calls(self) -> list[str]:
        return self.called.read_text().splitlines() if self.called.exists() else []


@pytest.fixture
def outside(open_tmp_path: Path) -> Iterator[Outside]:
    outside = Outside(open_tmp_path)
    running = Running(outside.helper)
    yield outside
    running.finish()
    assert not Path(outside.helper.folder).exists()
    assert not Path(outside.helper.shared).exists()


def test_workers_are_submitted_seen_and_cancelled(outside: Outside) -> None:
    assert outside.ask(DASK) == {"job": "4711"}
    (call,) = outside.calls()
    assert call.startswith("sbatch --parsable --no-requeue --job-name=hpcbinder-workers-")
    assert " --ntasks=1 --cpus-per-task=1 --partition=site --wrap=" in call
    assert "secret" not in call and "PRIVATE" not in call and "c2Vj" not in call
    shared = Path(outside.helper.shared)
    (told,) = (path for path in shared.iterdir() if path.suffix == "" and path.is_file())
    assert [path.stat().st_mode & 0o777 for path in (shared.parent, shared, told)] == [0o700, 0o700, 0o600]
    assert json.loads(told.read_text())["secrets"]["DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY"] == PEM
    assert outside.ask({"do": "cancel", "jobs": ["4711"]}) == {}
    assert outside.calls()[1] == "scancel --quiet 4711"


@pytest.mark.parametrize("space", [False, True])
def test_jobs_of_a_space_start_in_no_folder_of_the_person_s(open_tmp_path: Path, space: bool) -> None:
    """A job starts by path where sbatch was, and a colleague's may be there by then (docs/space.md)."""
    copy = {"folder": {"path": str(open_tmp_path), "inode": open_tmp_path.stat().st_ino, "above": 0}}
    outside = Outside(open_tmp_path, **(copy if space else {}))
    running = Running(outside.helper)
    try:
        assert outside.ask(DASK) == {"job": "4711"}
    finally:
        running.finish()
    assert {*outside.where.read_text().splitlines()} == {"/" if space else str(open_tmp_path)}


GROUP = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to a group")


def of_a_group(path: Path) -> Path:
    """A folder of a group's that the person is not alone in."""
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, 0, GROUP)
    path.chmod(0o2775)
    return path


@needs_root
def test_what_starts_workers_lies_where_no_colleague_can_change_it(open_tmp_path: Path) -> None:
    """And so does what is shown inside, whose programs are on PATH there."""
    state, temporary = of_a_group(open_tmp_path / "state"), of_a_group(open_tmp_path / "temporary")
    outside = Outside(open_tmp_path, environ={"XDG_STATE_HOME": str(state), "TMPDIR": str(temporary)})
    assert Path(outside.helper.folder).parent == Path("/tmp")
    assert Path(outside.helper.shared).parent == open_tmp_path / ".local/state/hpcbinder/workers"
    running = Running(outside.helper)
    try:
        assert outside.ask(DASK) == {"job": "4711"}
        assert Path(outside.helper.shared, "launch.py").is_file()
    finally:
        running.finish()
    assert [*state.iterdir(), *temporary.iterdir()] == []
    # One of their own, although in the group's, is taken.
    (state / "alice").mkdir(0o700)
    state.chmod(0o755)
    other = Outside(of_a_home(open_tmp_path), environ={"XDG_STATE_HOME": str(state / "alice")})
    assert Path(other.helper.shared).parent == state / "alice/hpcbinder/workers"


def of_a_home(folder: Path) -> Path:
    (folder / "other").mkdir()
    return folder / "other"


@needs_root
@pytest.mark.parametrize("later", [False, True])
def test_where_there_is_no_such_place_no_workers_are_started(open_tmp_path: Path, later: bool) -> None:
    if not later:
        of_a_group(open_tmp_path / ".local")
    outside = Outside(open_tmp_path)
    why = f"others can write to {open_tmp_path}/.local (chmod go-w)"
    assert outside.helper.notes == (() if later else (f"no workers can be started: {why}",))
    assert (shown(outside.helper, ("true",))[0][4] == "") is not later
    running = Running(outside.helper)
    of_a_group(open_tmp_path / ".local")
    try:
        refused = "there is no place for what starts them that stays yours" if not later else why
        assert outside.ask(DASK) == {"refused": f"no workers are started: {refused}"}
        assert outside.calls() == []
        request = {"do": "command", "argv": ["squeue"], "cwd": "/"}
        with Path(os.devnull).open("r+b") as null:
            assert outside.ask(request, (null.fileno(),) * 3) == {"code": 3}
    finally:
        running.finish()
    assert list((open_tmp_path / ".local").iterdir()) == []


def test_what_a_killed_helper_left_goes_after_a_while(outside: Outside) -> None:
    place = Path(outside.helper.shared).parent
    for name in ("old", "young"):
        (place / name / "hpcbinder_launch").mkdir(parents=True)
    os.utime(place / "old", (0, 0))
    assert outside.ask(DASK) == {"job": "4711"}
    assert sorted(path.name for path in place.iterdir()) == sorted(["young", Path(outside.helper.shared).name])


def test_engines_are_tasks_of_one_job(outside: Outside) -> None:
    request = {"do": "start", "kind": "ipyparallel", "values": ENGINES, "asked": {"tasks": 3, "cpus": 2, "nodes": 2}}
    assert outside.ask(request) == {"job": "4711"}
    (call,) = outside.calls()
    assert " --ntasks=3 --nodes=2 --cpus-per-task=2 " in call
    assert "--wrap=srun --mpi=none --kill-on-bad-exit=0 --ntasks=3 --cpus-per-task=2 -- " in call
    assert "secret" not in call


def test_what_the_site_says_counts_where_nothing_else_does(outside: Outside) -> None:
    outside.ask({**DASK, "asked": {"partition": "", "memory": "2G"}})
    outside.ask({**DASK, "asked": {"partition": "mine"}})
    first, second = outside.calls()
    assert " --mem=2G --partition=site " in first
    assert " --partition=mine " in second


def test_a_command_has_the_streams_and_the_exit_code_of_who_asks(outside: Outside) -> None:
    read_end, write_end = os.pipe()
    request = {"do": "command", "argv": ["squeue", "--me"], "cwd": "/image/only"}
    assert outside.ask(request, (0, write_end, write_end)) == {"code": 3}
    os.close(write_end)
    with os.fdopen(read_end) as stream:
        assert stream.read() == "4711|PENDING||Resources\n"
    assert outside.calls() == ["squeue --me"]


def test_nothing_of_this_job_and_of_the_server_is_for_others(outside: Outside) -> None:
    assert not {"SLURM_JOB_ID", "JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN"} & outside.helper.environ.keys()
    assert "PATH" in outside.helper.environ


ATTACKS: list[Any] = [
    b"\n",
    b"[]\n",
    b"{\n",
    b"[" * 100_000 + b"\n",
    b'{"do": "jobs"' + b" " * (300 << 10) + b"}\n",
    {},
    {"do": "shell"},
    {"do": "command", "argv": ["squeue"], "cwd": "/"},  # without streams
    {"do": "cancel", "jobs": ["1"]},
    {"do": "cancel", "jobs": ["--user=root"]},
    {"do": "cancel", "jobs": [["4711"]]},
    {"do": "cancel"},
    {**DASK, "kind": "bash"},
    {**DASK, "kind": ["dask"]},
    {**DASK, "values": None},
    {**DASK, "values": {**VALUES, "command": "id"}},
    {**DASK, "values": {**VALUES, "python": "python"}},
    {**DASK, "values": {**VALUES, "python": "/bin/sh\n"}},
    {**DASK, "values": {**VALUES, "scheduler": "tcp://10.0.0.1:1"}},
    {**DASK, "values": {**VALUES, "scheduler": "tls://10.0.0.1:1 --preload=x"}},
    {**DASK, "values": {**VALUES, "name": "--preload"}},
    {**DASK, "values": {**VALUES, "threads": "0"}},
    {**DASK, "values": {**VALUES, "key": "/root/.ssh/id_rsa"}},
    {**DASK, "asked": {"partition": "debug\n#SBATCH --uid=0"}},
    {**DASK, "asked": {"partition": "--uid=0"}},
    {**DASK, "asked": {"tasks": "1"}},
    {**DASK, "asked": {"tasks": True}},
    {**DASK, "asked": {"cpus": -1}},
    {**DASK, "asked": {"wrap": "id"}},
    {**DASK, "asked": ["id"]},
    {"do": "start", "kind": "ipyparallel", "values": {**ENGINES, "connection": "{not json}"}},
]


@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_what_nobody_means_is_refused(outside: Outside, attack: object) -> None:
    try:
        assert outside.ask(attack).keys() == {"refused"}
    except ConnectionError:
        pass  # it was still talking when nobody listened any more
    assert outside.calls() == []
    assert outside.ask({"do": "hello"}) == {"address": "127.0.0.1"}


@pytest.mark.parametrize(
    "argv", [["srun", "id"], ["sh"], ["/bin/sh"], ["../bin/squeue"], [], "squeue", ["squeue", "\0"], [1]]
)
def test_commands_that_are_none_of_slurms(outside: Outside, argv: object) -> None:
    assert outside.ask({"do": "command", "argv": argv, "cwd": "/"}, (0, 1, 2)).keys() == {"refused"}
    assert outside.calls() == []


def test_a_site_lets_only_workers_in(open_tmp_path: Path) -> None:
    outside = Outside(open_tmp_path, "workers")
    running = Running(outside.helper)
    try:
        assert not Path(outside.helper.folder, "bin").exists()
        answer = outside.ask({"do": "command", "argv": ["squeue"], "cwd": "/"}, (0, 1, 2))
        assert answer == {"refused": "the site lets no commands in"}
        assert outside.calls() == []
        assert outside.ask(DASK) == {"job": "4711"}
    finally:
        running.finish()
    assert outside.calls()[-1].startswith("scancel --quiet --name=hpcbinder-workers-")


def test_a_client_that_cannot_be_shown_says_why_and_workers_are_started(open_tmp_path: Path) -> None:
    outside = Outside(open_tmp_path, "bound")
    why = f"no Slurm client inside: {open_tmp_path}/bin/sbatch is a script, and what it starts is not there inside"
    assert outside.helper.notes == (why,)
    running = Running(outside.helper)
    try:
        done = subprocess.run([f"{outside.helper.folder}/bin/squeue", "--me"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (127, f"{why}\n")
        answer = outside.ask({"do": "command", "argv": ["squeue"], "cwd": "/"}, (0, 1, 2))
        assert answer == {"refused": "the site lets no commands in"}
        assert outside.ask(DASK) == {"job": "4711"}
    finally:
        running.finish()


def test_where_no_thread_can_be_started_the_next_one_is_answered(
    open_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also its jobs are ended as ever (pthread_create(3), EAGAIN; made up)."""
    starts, start = iter([RuntimeError("can't start new thread")]), threading.Thread.start

    def once(thread: threading.Thread) -> None:
        for error in starts:
            raise error
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", once)
    outside = Outside(open_tmp_path)
    running = Running(outside.helper)
    try:
        with pytest.raises((ConnectionError, json.JSONDecodeError)):
            outside.ask(DASK)
        assert outside.ask(DASK) == {"job": "4711"}
    finally:
        running.finish()
    assert outside.calls()[-1].startswith("scancel --quiet --name=hpcbinder-workers-")


def test_there_is_none_where_nobody_wants_it(tmp_path: Path) -> None:
    assert SlurmConfig().inside == "commands"
    environ = {"PATH": str(tmp_path), "HOME": "/"}
    assert offered({"slurm": {"inside": "commands"}}, environ, "/") is None
    (tmp_path / "sbatch").touch(0o755)
    assert offered({"slurm": {"inside": "off"}}, environ, "/") is None
    assert offered({}, environ, "/") is None


def test_nobody_else_is_answered(outside: Outside, user: User) -> None:
    """The other one is an ordinary user; that the folder is open is not what keeps him out."""
    command = [sys.executable, "-I", "-c", CONNECT, outside.socket]
    assert user.run(command).stdout == "PermissionError\n"
    Path(outside.helper.folder).chmod(0o777)
    Path(outside.socket).chmod(0o777)
    assert json.loads(user.run(command).stdout) == {"refused": "this serves somebody else"}
    assert outside.calls() == []

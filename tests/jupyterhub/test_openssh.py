"""A server on another machine by SSH: who is let in, what runs there, and that it ends. Against a real sshd."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from waiting import eventually

from hpcbinder.errors import RunError, UsageError
from hpcbinder.jupyterhub.openssh import Login, OpenSSH
from rig import Sshd, User

SECRET = "token-0123456789"


@pytest.fixture
def login(sshd: Sshd, user: User, tmp_path: Path) -> Login:
    """The user's key, and the machine's: what a site gives to its hub."""
    key = tmp_path / "key"
    make_key(key)
    folder = user.home / ".ssh"
    folder.mkdir(mode=0o700)
    (folder / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    user.own(folder)
    (tmp_path / "known_hosts").write_text(sshd.known_hosts)
    return Login(
        host=sshd.host,
        user=f"hpcbinder-test-{user.uid}",
        key=key,
        known_hosts=tmp_path / "known_hosts",
        port=sshd.port,
    )


def make_key(path: Path, *words: str) -> None:
    command = ["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path), *words]
    subprocess.run(command, check=True, capture_output=True)


def ask(login: Login, request: dict[str, Any]) -> dict[str, Any]:
    return asyncio.run(OpenSSH().ask(login, request, seconds=60))


def start(login: Login, *command: str) -> dict[str, Any]:
    request = {"do": "start", "files": {"a/b.txt": SECRET}, "command": command}
    server: dict[str, Any] = ask(login, request)["server"]
    return server


def test_a_server_outlives_the_connection_and_ends_when_told(login: Login, user: User, sshd: Sshd) -> None:
    told = user.home / "told"
    script = f'cat "$1" > {told}; echo ":$HOME:$(umask):$SSH_CONNECTION" >> {told}; sleep 1000 & exec sleep 1000'
    server = start(login, "/bin/sh", "-c", script, "sh", "{folder}/a/b.txt")
    assert eventually(lambda: told.exists() and told.read_text() == f"{SECRET}:{user.home}:0022:\n")
    assert ask(login, {"do": "look", "server": server}) == {"running": True}
    stopped = ask(login, {"do": "stop", "server": server, "patience": 10})
    assert (stopped["running"], stopped["code"]) == (False, -15)
    assert ask(login, {"do": "look", "server": server})["running"] is False
    assert eventually(lambda: not user.processes())


def test_a_server_that_ends_leaves_its_code_and_its_last_words_and_no_files(login: Login, user: User) -> None:
    server = start(login, "/bin/sh", "-c", "echo no such image; exit 7")
    found: dict[str, Any] = {}
    assert eventually(lambda: found.update(ask(login, {"do": "look", "server": server})) or not found["running"])
    assert found == {"running": False, "code": 7, "said": "no such image\n"}
    assert eventually(lambda: not Path(server["folder"], "files").exists())


def test_one_that_does_not_heed_is_killed(login: Login, user: User) -> None:
    server = start(
        login,
        "/bin/sh",
        "-c",
        "trap '' TERM; touch ~/deaf; while :; do sleep 0.1; done",
    )
    assert eventually((user.home / "deaf").exists)
    assert ask(login, {"do": "stop", "server": server, "patience": 0.2})["running"] is False
    assert eventually(lambda: not user.processes())


def test_another_process_of_that_number_is_not_the_server(login: Login, user: User) -> None:
    server = start(login, "/bin/sleep", "1000")
    another = {**server, "started": server["started"] - 1}
    assert ask(login, {"do": "stop", "server": another, "patience": 0})["running"] is False
    assert ask(login, {"do": "look", "server": server}) == {"running": True}
    assert ask(login, {"do": "look", "server": {**server, "boot": "before"}})["running"] is False
    # A name that leads to one of several machines, today to another than yesterday.
    with pytest.raises(RunError, match="this is gate, and the server is on login7"):
        ask(login, {"do": "look", "server": {**server, "machine": "login7"}})


def test_no_secret_is_in_an_argument_or_in_a_file_of_others(login: Login, user: User) -> None:
    # The client's arguments do not depend on what is asked.
    assert SECRET not in " ".join(OpenSSH().argv(login))
    start(login, "/bin/sh", "-c", "cat $0; exec sleep 1000", "{folder}/a/b.txt")
    place = user.home / ".local/state/hpcbinder/servers"
    assert eventually(lambda: any(SECRET in log.read_text() for log in place.glob("*/log")))
    assert not any(SECRET in line for line in user.processes().values())
    for path in (*place.iterdir(), *place.glob("*/*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_no_server_is_started_where_others_could_put_something_in_its_place(login: Login, user: User) -> None:
    """By path, and later, the launcher is opened."""
    (user.home / ".local").mkdir()
    user.own(user.home / ".local")
    (user.home / ".local").chmod(0o777)
    mode = user.home.stat().st_mode
    user.home.chmod(0o755)  # one that nobody else enters keeps them from it as well
    try:
        why = rf"no place for a server: others can write to {user.home}/.local \(chmod go-w\)"
        with pytest.raises(RunError, match=why):
            start(login, "/bin/sleep", "1000")
    finally:
        user.home.chmod(mode)
    assert list((user.home / ".local").iterdir()) == []


def test_what_a_shell_prints_is_no_answer(login: Login, user: User) -> None:
    (user.home / ".profile").write_text("echo hello\n")
    forged = json.dumps({"server": {"pid": 1}})
    # What sshd runs in place of the command, as a site or a person may have it.
    keys = user.home / ".ssh/authorized_keys"
    keys.write_text(
        f'command="echo hpcbinder- {forged.replace(chr(34), chr(92) + chr(34))}; eval $SSH_ORIGINAL_COMMAND; echo bye" '
        + keys.read_text()
    )
    user.own(keys)
    server = start(login, "/bin/sleep", "1000")
    assert server["pid"] != 1


def test_a_machine_with_another_host_key_is_refused(login: Login, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    place = login.known_hosts.read_text().split()[0]
    login.known_hosts.write_text(f"{place} {(tmp_path / 'other.pub').read_text()}")
    with pytest.raises(RunError, match="not the machine whose host key is known"):
        start(login, "/bin/true")
    login.known_hosts.write_text("")
    with pytest.raises(RunError, match="its host key is not known"):
        start(login, "/bin/true")
    assert login.known_hosts.read_text() == ""


def test_a_key_that_is_not_taken_is_named(login: Login, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    with pytest.raises(RunError, match="does not take the key"):
        start(replace(login, key=tmp_path / "other"), "/bin/true")


def test_a_certificate_of_the_site_lets_in(login: Login, sshd: Sshd, tmp_path: Path) -> None:
    key = tmp_path / "certified"
    make_key(key)
    sign = ["-q", "-s", str(sshd.authority), "-I", "rig", "-n", login.user, "-V", "+1h", str(key.with_suffix(".pub"))]
    subprocess.run(["/usr/bin/ssh-keygen", *sign], check=True, capture_output=True)
    certified = replace(login, key=key, certificate=tmp_path / "certified-cert.pub")
    assert start(certified, "/bin/true")["pid"]
    with pytest.raises(RunError, match="does not take the key"):
        start(replace(certified, user="nobody"), "/bin/true")


@contextlib.contextmanager
def nobody_there() -> Iterator[int]:
    """A port that is taken, and where nothing answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_dead_machine_is_named(login: Login) -> None:
    with nobody_there() as port, pytest.raises(RunError, match=r"127\.0\.0\.1 cannot be logged in to: nothing answers"):
        start(replace(login, host="127.0.0.1", port=port), "/bin/true")
    with pytest.raises(RunError, match="there is no machine of that name"):
        start(replace(login, host="no-such-machine.invalid"), "/bin/true")


def test_a_machine_without_that_python_is_named(login: Login) -> None:
    with pytest.raises(RunError, match="lets .* in, and runs nothing for the hub: .*no/such/python"):
        asyncio.run(OpenSSH(python="/no/such/python").ask(login, {"do": "look"}, seconds=60))


def test_a_command_that_is_not_there_is_named(login: Login) -> None:
    with pytest.raises(RunError, match="No such file"):
        start(login, "/no/such/program")


@pytest.mark.parametrize(
    "change",
    [
        {"host": "-oProxyCommand=touch /tmp/x"},
        {"host": "a b"},
        {"host": ""},
        {"user": "-x"},
        {"user": "a@b"},
        {"user": "../alice"},
        {"key": Path("relative")},
        {"key": Path('/a" /b')},
        {"known_hosts": Path("/a\n/b")},
        {"known_hosts": Path("/%h")},
        {"port": 0},
    ],
)
def test_what_ssh_would_take_for_something_else_is_refused(change: dict[str, Any]) -> None:
    good = Login(host="login1.example.org", user="alice", key=Path("/keys/alice"), known_hosts=Path("/keys/hosts"))
    with pytest.raises(UsageError):
        replace(good, **change)

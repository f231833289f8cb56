"""What a hub with servers by SSH is told by its site, and believes of what it hears."""

from __future__ import annotations

import asyncio
import types
from typing import Any

import pytest

from hpcbinder.errors import RunError, UsageError
from hpcbinder.jupyterhub import LocalSpawner, SshSpawner
from hpcbinder.jupyterhub.account import Account
from hpcbinder.jupyterhub.local import kept

SERVER = {"pid": 12, "started": 34, "boot": "b", "machine": "login1", "folder": "/home/alice/x"}


def spawner(name: str = "alice", **settings: Any) -> SshSpawner:
    made = SshSpawner(ssh_key="/keys/{username}", ssh_known_hosts="/keys/hosts", **settings)
    made.user = types.SimpleNamespace(name=name)
    return made


def test_a_server_is_kept_as_it_was_said() -> None:
    assert kept("login1", SERVER) == SERVER


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        "x",
        {},
        {**SERVER, "more": 1},
        {**SERVER, "pid": "12; id"},
        {**SERVER, "pid": True},
        {**SERVER, "folder": "x" * 5000},
        {**SERVER, "machine": None},
    ],
)
def test_an_answer_that_is_none_is_not_kept(said: Any) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        kept("login1", said)


def test_nor_is_one_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Any] = {}

    async def ask(self: Account, program: str, request: object) -> dict[str, Any]:
        return said

    account = Account("alice", "/home/alice", "/bin/sh", (), {}, "/usr/bin/python3")
    monkeypatch.setattr(LocalSpawner, "account", lambda self: account)
    monkeypatch.setattr(Account, "ask", ask)
    for server in (None, "x" * 100_000, {**SERVER, "pid": [12]}, {**SERVER, "boot": "x" * 100_000}):
        said["server"] = server
        with pytest.raises(RunError, match="cannot be read"):
            asyncio.run(LocalSpawner().launch({"do": "start"}))
    said["server"] = SERVER
    assert asyncio.run(LocalSpawner().launch({"do": "start"})) == {"server": SERVER}


@pytest.mark.parametrize("name", ["root", "../alice", "-oProxyCommand=x", "a b", "a\nb", "a/b", "%h"])
def test_a_name_that_is_no_account_gets_nothing(name: str) -> None:
    with pytest.raises(UsageError):
        spawner(name).account()


def test_nothing_is_run_here_in_a_person_s_name() -> None:
    # Whether or not there is an account of that name on the hub's machine.
    for name in ("alice", "nobody"):
        assert spawner(name).account().prefix == ("/bin/false",)


def test_a_hub_that_was_told_too_little_says_so() -> None:
    without = SshSpawner(hosts=["login1"])
    without.user = types.SimpleNamespace(name="alice")
    with pytest.raises(UsageError, match="ssh_key, ssh_known_hosts"):
        without.account()

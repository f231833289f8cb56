"""What a hub does in a person's name, and never does itself: it may be root, and what a person says is a stranger's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import shlex
import signal
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
from stored_image import put

from hpcbinder.catalog import Catalog
from hpcbinder.config import Config, JupyterhubConfig, StoreConfig
from hpcbinder.errors import RunError, UsageError
from hpcbinder.jupyterhub import LocalSpawner
from hpcbinder.jupyterhub.account import Account, Done, run
from hpcbinder.jupyterhub.offer import Offers
from hpcbinder.model import to_json
from hpcbinder.register import Published, publish

ID = "ligo-0123456789ab"
ME = pwd.getpwuid(os.getuid())


# Commands


def told(*command: str, by: bytes = b"", seconds: float = 60.0) -> Done:
    return asyncio.run(run(command, by, environ={"PATH": os.defpath}, seconds=seconds))


def test_what_a_command_says_and_how_it_ends() -> None:
    done = told("/bin/sh", "-c", "cat; echo no >&2; exit 3", by=b"x" * 1_000_000)
    assert (done.code, done.out, done.complaint) == (3, "x" * 1_000_000, "no\n")
    assert told("/bin/true", by=b"x" * 1_000_000).code == 0
    assert len(told("/bin/sh", "-c", "head -c 300000 /dev/zero >&2").complaint) == 1 << 16
    with pytest.raises(RunError, match="/no/such/program cannot be run"):
        told("/no/such/program")


def test_half_an_answer_is_none() -> None:
    assert len(told("/usr/bin/head", "-c", str(1 << 20), "/dev/zero").out) == 1 << 20
    for command in ("head -c 1048577 /dev/zero", "cat /dev/zero"):
        with pytest.raises(RunError, match="says more than 1048576 bytes"):
            told("/bin/sh", "-c", command)


@pytest.mark.parametrize("then", ["sleep 3600", "exit 0"])
def test_what_a_command_leaves_running_is_not_waited_for(tmp_path: Path, then: str) -> None:
    file = tmp_path / "pid"
    left = f"echo $$ >{file}.new; mv {file}.new {file}; exec sleep 60"
    try:
        with pytest.raises(RunError, match="takes more than 1 s"):
            told("/bin/sh", "-c", f"setsid sh -c {shlex.quote(left)} & {then}", seconds=1)
        while not file.exists():
            time.sleep(0.05)
        os.kill(int(file.read_text()), 0)  # it still runs, and has its pipes
    finally:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(file.read_text()), signal.SIGKILL)


# Who has servers


def account(name: str, **settings: Any) -> Account:
    return Account.of(name, prefix="sudo -u {username}", environ={}, python="/usr/bin/python3", **settings)


def test_a_service_has_no_server() -> None:
    for name in ("root", "daemon"):
        with pytest.raises(UsageError, match=f"no server is started as {name}"):
            account(name)
    assert account("daemon", minimum_uid=1).prefix == ("sudo", "-u", "daemon")
    with pytest.raises(UsageError, match="no server is started as root"):
        account("root", minimum_uid=0, hubs=True)


def test_the_hubs_own_account_has_one_only_where_the_site_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert account("nobody").prefix == ("sudo", "-u", "nobody")
    uid = pwd.getpwnam("nobody").pw_uid
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    with pytest.raises(UsageError, match="the hub's own account"):
        account("nobody")
    assert account("nobody", hubs=True).prefix == ()


def test_a_spawners_settings_say_so() -> None:
    for name, settings in (("daemon", {}), ("nobody", {"minimum_uid": 2_000_000})):
        with pytest.raises(UsageError, match="an account of a service"):
            spawner(name, **settings).account()
    assert spawner("daemon", minimum_uid=1).account().name == "daemon"


# A server's files


def spawner(name: str = "nobody", **settings: Any) -> LocalSpawner:
    made = LocalSpawner(exec_prefix="/usr/bin/env", **settings)
    made.user = types.SimpleNamespace(name=name, settings={})
    return made


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the launch.json of nobody's server. The runtimes are empty files on a PATH: nothing is run."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for program in ("apptainer", "ch-run"):
        (bin_ / program).touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")
    url = {"JUPYTERHUB_API_URL": "http://127.0.0.1:8081/hub/api"}
    monkeypatch.setattr(LocalSpawner, "told_environment", lambda self, path="": url)

    def make(settings: str, site: Catalog, program: tuple[str, ...] = ()) -> dict[str, Any]:
        file = tmp_path / "config.toml"
        file.write_text(settings)
        config = Config(
            store=StoreConfig(path=tmp_path / "hub", site=(site.path,)), jupyterhub=JupyterhubConfig(own=bool(program))
        )
        offers = Offers(config, scheduler=False, program=program)
        hubs = spawner(hpcbinder_config=str(file), offers=offers)
        hubs.user_options = {"environment": ID}
        _, _, files = asyncio.run(hubs.prepare())
        launch: dict[str, Any] = json.loads(files["launch.json"])
        return launch

    return make


def test_the_hub_runs_the_sites_prologue_in_no_home_but_its_own(prepared: Any, tmp_path: Path) -> None:
    """`module load` reads Lua below $HOME: that would be a person's code, run by a hub that may be root."""
    site = Catalog(tmp_path / "site")
    publish(site, put(site), Published("LIGO"))
    line = f'echo "$HOME $USER $LOGNAME" >>{tmp_path}/seen'
    launch = prepared(f"[runtime]\nname = 'apptainer'\nprologue = ['{line}']\n", site)
    assert launch["prologue"] == [line]  # on the node it is the person's
    seen = set((tmp_path / "seen").read_text().splitlines())
    assert seen == {f"{ME.pw_dir} {ME.pw_name} {ME.pw_name}"}


def test_the_hub_opens_no_image_that_a_person_names(prepared: Any, tmp_path: Path) -> None:
    site, own = Catalog(tmp_path / "site"), Catalog(tmp_path / "own")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    record = {**to_json(put(own)), "formats": {"squashfs": str(fifo)}}
    answers = {"list": [{"id": ID, "source": "https://example.org/ligo"}], "show": record}
    (tmp_path / "says.json").write_text(json.dumps(answers))
    text = f"import json, sys; print(json.dumps(json.load(open({str(tmp_path / 'says.json')!r}))[sys.argv[1]]))"
    launch = prepared("[runtime]\nname = 'charliecloud'\n", site, (sys.executable, "-c", text))
    assert (launch["image"]["location"], launch["image"]["mount_points"]) == (str(fifo), [])

"""What tests of a hub's servers ask it, and wait for."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests

from rig import Hub
from rig.hub import PASSWORD

_Value = TypeVar("_Value")
SECONDS = int(os.environ.get("HPCBINDER_TEST_SECONDS", "300"))
"""That anything may take here, on a machine that has much else to do."""

IMPATIENT = ("c.JupyterHub.init_spawners_timeout = 1", 'c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 1}')
"""Lines for a hub that is not to wait, as long as it can, for servers whose jobs wait."""


def hpcbinder(store: Path, *arguments: str) -> str:
    """The command line with a store; what it prints."""
    environ = {k: v for k, v in os.environ.items() if k not in ("PIP_FIND_LINKS", "PIP_CONFIG_FILE", "PYTHONPATH")}
    home = store / "home"
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "hpcbinder", "--store", str(store), *arguments],
        env={**environ, "HOME": str(home), "HPCBINDER_BUILD_ENGINE": "none"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stderr[-4000:]}")
    return done.stdout


def until(look: Callable[[], _Value], what: str) -> _Value:
    """The first value that counts as true."""
    end = time.monotonic() + SECONDS
    while not (value := look()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {SECONDS} s: {what}")
        time.sleep(0.1)
    return value


def start(hub: Hub, name: str, options: Any, server: str = "") -> tuple[int, Any]:
    """Ask for a person's server by the REST API, as that person."""
    path = f"/users/{name}/servers/{server}"
    return hub.request("POST", path, {"user_options": options}, token=hub.token_of(name))


def running(hub: Hub, name: str, options: Any, server: str = "") -> dict[str, Any]:
    """A server that has started: what the hub says of it."""
    status, answer = start(hub, name, options, server)
    assert status in (201, 202), (answer, hub.log.read_text()[-3000:])

    def ready() -> dict[str, Any] | None:
        model: dict[str, Any] = hub.servers(name)[server]
        assert model["ready"] or model["pending"], hub.log.read_text()[-3000:]
        return model if model["ready"] else None

    return until(ready, f"a server of {name}'s")


def failed(hub: Hub, name: str, server: str = "") -> str:
    """Why a server did not start, as its person is told: the last event of its progress."""
    token = hub.token_of(name)
    path = f"/hub/api/users/{name}/servers/{server}/progress" if server else f"/hub/api/users/{name}/server/progress"
    session = requests.Session()
    session.trust_env = False
    answer = session.get(f"{hub.url}{path}", headers={"Authorization": f"token {token}"}, timeout=SECONDS)
    return answer.text


def logged_in(hub: Hub, name: str, host: str = "") -> requests.Session:
    """A person's browser, without its scripts.

    Args:
        hub: What it shows.
        name: The person's.
        host: What it knows the hub by; its address, if empty.
    """
    session = requests.Session()
    session.trust_env = False
    if host:
        session.headers["Host"] = host
    session.get(f"{hub.url}/hub/login", timeout=SECONDS)
    xsrf = next(cookie.value for cookie in session.cookies if cookie.name == "_xsrf" and cookie.path == "/hub/")
    said = {"username": name, "password": PASSWORD, "_xsrf": xsrf}
    answer = session.post(f"{hub.url}/hub/login", data=said, allow_redirects=False, timeout=SECONDS)
    assert answer.status_code == 302, answer.text
    return session


def environment_of(hub: Hub, name: str) -> dict[str, str]:
    """What the variables of a person's server are, as root sees them on the node."""
    for process, line in hub.accounts[name].processes().items():
        if "jupyterhub-singleuser" in line and "/bin/sh" not in line and "apptainer" not in line.lower().split()[0]:
            text = Path(f"/proc/{process.pid}/environ").read_bytes().decode()
            return dict(item.split("=", 1) for item in text.split("\0") if "=" in item)
    raise AssertionError(f"{name} has no server")


@contextlib.contextmanager
def closed_partition(hub: Hub) -> Iterator[tuple[str, Callable[[], None]]]:
    """A partition whose jobs wait, and what opens it."""
    name = f"closed{os.getpid()}"

    def control(*arguments: str) -> None:
        subprocess.run(["scontrol", *arguments], env={**os.environ, **hub.slurm.environment}, check=True, timeout=60)

    control("create", f"PartitionName={name}", "Nodes=n1,n2", "State=DOWN")
    try:
        yield name, lambda: control("update", f"PartitionName={name}", "State=UP")
    finally:
        # By the partition: here nobody is known by the names that the hub's persons have there.
        command = ["scancel", "--quiet", f"--partition={name}"]
        subprocess.run(command, env={**os.environ, **hub.slurm.environment}, check=True, timeout=60)
        until(lambda: not _jobs(hub, name), "its jobs are over")
        control("delete", f"PartitionName={name}")


def _jobs(hub: Hub, partition: str) -> str:
    command = ["squeue", "--noheader", f"--partition={partition}"]
    environ = {**os.environ, **hub.slurm.environment}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60).stdout


def queue(hub: Hub, name: str) -> str:
    """A person's jobs."""
    user = hub.accounts[name]
    user.knows(hub.slurm.hosts)
    return user.run(["squeue", "--noheader", "--me"], env=hub.slurm.environment).stdout

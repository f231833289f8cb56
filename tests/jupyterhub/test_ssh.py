"""Servers on a login node by SSH: the real hub, a real sshd, the image in Apptainer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hubservers import environment_of, failed, running, start, until

from rig import Hub, Sshd


@pytest.fixture(scope="module")
def keys(sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the site gives to its hub: the machine's host key, and a key for alice."""
    folder = tmp_path_factory.mktemp("keys")
    make = ["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "alice")]
    subprocess.run(make, check=True, capture_output=True)
    (folder / "known_hosts").write_text(sshd.known_hosts)
    return folder


@pytest.fixture(scope="module")
def ssh_hub(hub: Hub, sshd: Sshd, keys: Path) -> Iterator[Hub]:
    settings = {
        "spawner": "ssh",
        # Nothing answers at the first one, and a server comes up all the same.
        "hosts": ["127.0.0.1", sshd.host],
        "ssh_port": sshd.port,
        "ssh_key": f"{keys}/{{username}}",
        "ssh_known_hosts": f"{keys}/known_hosts",
        "look_interval": 0.5,
    }
    hub.restart(settings=settings, lines=["c.Spawner.poll_interval = 1"])
    yield hub
    hub.restart(settings={}, lines=[])


@pytest.fixture
def alice(ssh_hub: Hub, sshd: Sshd, keys: Path) -> Iterator[str]:
    user = ssh_hub.accounts["alice"]
    sshd.knows(user)
    folder = user.home / ".ssh"
    folder.mkdir(mode=0o700)
    (folder / "authorized_keys").write_text((keys / "alice.pub").read_text())
    user.own(folder)
    yield "alice"
    (keys / "known_hosts").write_text(sshd.known_hosts)
    ssh_hub.clear("alice")


def test_a_server_on_the_login_node(ssh_hub: Hub, hub_image: str, sshd: Sshd, alice: str) -> None:
    running(ssh_hub, alice, {"environment": hub_image})
    assert answers(ssh_hub, alice)["kernels"] == 0
    state = saved(ssh_hub)
    assert state["host"] == sshd.host
    assert state["server"]["machine"] == "gate"

    # Its secrets are its own.
    token = environment_of(ssh_hub, alice)["JUPYTERHUB_API_TOKEN"]
    user = ssh_hub.accounts[alice]
    assert not any(token in line for line in user.processes().values())
    assert token not in sshd.log.read_text()
    left = [path for path in user.home.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert left == []

    # A hub that is started again finds it again.
    ssh_hub.restart()
    assert ssh_hub.servers(alice)[""]["ready"]
    assert answers(ssh_hub, alice)["kernels"] == 0

    # And it ends with all that it has started.
    assert ssh_hub.request("DELETE", f"/users/{alice}/server")[0] in (202, 204)
    until(lambda: not user.processes(), "all of it has ended")
    until(lambda: not ssh_hub.servers(alice).get("", {}).get("ready"), "the hub knows")


def answers(hub: Hub, name: str) -> Any:
    """What a person's server says of itself, through the proxy."""
    status, answer = hub.request("GET", f"/user/{name}/api/status", token=hub.token_of(name), api=hub.url)
    assert status == 200, answer
    return answer


def saved(hub: Hub) -> Any:
    """What the hub keeps of alice's server."""
    _, user = hub.request("GET", "/users/alice?include_stopped_servers=1")
    return user["servers"][""]["state"]["hpcbinder"]


def test_a_server_that_dies_is_noticed(ssh_hub: Hub, hub_image: str, alice: str) -> None:
    user = ssh_hub.accounts[alice]
    running(ssh_hub, alice, {"environment": hub_image})
    for process, line in user.processes().items():
        if "bin/jupyterhub-singleuser" in line and "launch.py" not in line:
            process.signal(9)
    until(lambda: not user.processes(), "what it had started has ended with it")
    until(lambda: not ssh_hub.servers(alice).get("", {}).get("ready"), "the hub has noticed")


def test_another_machine_with_that_name_gets_nothing(
    ssh_hub: Hub, hub_image: str, keys: Path, alice: str, tmp_path: Path
) -> None:
    make = ["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")]
    subprocess.run(make, check=True, capture_output=True)
    place = (keys / "known_hosts").read_text().split()[0]
    (keys / "known_hosts").write_text(f"{place} {(tmp_path / 'other.pub').read_text()}")
    start(ssh_hub, alice, {"environment": hub_image})
    assert "it is not the machine whose host key is known" in failed(ssh_hub, alice)
    assert ssh_hub.accounts[alice].processes() == {}


def test_who_has_no_key_is_told(ssh_hub: Hub, hub_image: str) -> None:
    start(ssh_hub, "bob", {"environment": hub_image})
    assert "it does not take the key" in failed(ssh_hub, "bob")


@pytest.mark.parametrize(
    "options",
    [
        {"hosts": ["elsewhere"]},
        {"ssh_user": "root"},
        {"ssh_key": "/root/.ssh/id_ed25519"},
        {"ssh_program": "/bin/sh"},
        {"exec_prefix": "true;"},
    ],
)
def test_the_way_there_is_the_site_s_alone(ssh_hub: Hub, hub_image: str, options: dict[str, Any]) -> None:
    status, answer = start(ssh_hub, "bob", {"environment": hub_image, **options})
    assert (status, f"there is no option '{next(iter(options))}'" in str(answer)) == (400, True)

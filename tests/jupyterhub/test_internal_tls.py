"""A hub whose internal TLS is on: what a server on a node speaks, with whom, and where its key is."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hubservers import IMPATIENT, SECONDS, closed_partition, environment_of, logged_in, queue, start, until

from rig import Hub

PUBLIC = "hub.example.org"


@pytest.fixture(scope="module")
def tls_hub(hub: Hub) -> Iterator[Hub]:
    # Counts when the hub makes its certificate, once.
    named = f'c.JupyterHub.trusted_alt_names.append("DNS:{PUBLIC}")'
    hub.restart(tls=True, lines=[*IMPATIENT, named])
    yield hub
    hub.clear("alice")
    hub.restart(tls=False, lines=[])


def answer_of(address: str, port: int, tls: ssl.SSLContext | None = None) -> tuple[str, Any]:
    """How a server's answer to a question begins, "" for none, and whom its certificate names."""
    names = None
    try:
        with socket.create_connection((address, port), SECONDS) as plain:
            connection = tls.wrap_socket(plain) if tls else plain
            if isinstance(connection, ssl.SSLSocket):
                names = (connection.getpeercert() or {}).get("subjectAltName")
            connection.sendall(b"GET /user/alice/api HTTP/1.0\r\n\r\n")
            return connection.recv(12).decode(), names
    except OSError:
        return "", names


def context(authorities: Path, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=authorities)
    # Nodes are known here by their addresses.
    made.check_hostname = False
    if certificate:
        made.load_cert_chain(certificate, key)
    return made


def test_a_server_speaks_tls_with_its_hub_and_the_hubs_proxy_alone(tls_hub: Hub, hub_image: str) -> None:
    hub, alice, bob = tls_hub, tls_hub.accounts["alice"], tls_hub.accounts["bob"]

    def certificate(token: str, body: bytes = b"") -> int:
        return hub.request("POST", "/hpcbinder/certificate", body, token=token)[0]

    with closed_partition(hub) as (partition, opened):
        status, answer = start(hub, "alice", {"environment": hub_image, "partition": partition})
        assert status in (201, 202), answer
        facts = until(lambda: hub.servers("alice")[""]["state"].get("hpcbinder"), "a job")
        job = until(lambda: hub.servers("alice")[""]["state"].get("job_id"), "its number")
        sent = Path(facts["folder"], "server.json")
        assert (sent.stat().st_mode & 0o777, sent.stat().st_uid) == (0o600, alice.uid)
        told = json.loads(sent.read_text())
        key, token = told["tls"]["key"], told["environment"]["JUPYTERHUB_API_TOKEN"]
        assert "PRIVATE KEY" in key
        assert not any(name.startswith("JUPYTERHUB_SSL") for name in told["environment"])
        # A certificate is that server's, who says nothing of what is in it, and there is none before it runs.
        assert [certificate(other) for other in (hub.token_of("bob"), hub.token_of("alice"), hub.token)] == [403] * 3
        assert certificate(token, b'{"machine": "n2"}') == 400
        assert certificate(token) == 503

        # The job outlives its hub, and so does what it has been told.
        hub.restart()
        assert job in queue(hub, "alice")
        opened()
        until(lambda: hub.servers("alice")[""]["ready"], "the server")
        assert certificate(token) == 409

        # Browser, proxy, server, and the server's questions to the hub. The proxy goes by what the browser asks for.
        for name in ("", PUBLIC):
            browser = logged_in(hub, "alice", name)
            assert browser.get(f"{hub.url}/hub/home", timeout=SECONDS).status_code == 200
            page = browser.get(f"{hub.url}/user/alice/lab/tree/index.ipynb", timeout=SECONDS)
            assert page.status_code == 200, page.text
            assert '"hubUser": "alice"' in page.text

        # On the node.
        command = ["squeue", "--noheader", f"--jobs={job}", "--format=%N"]
        node = alice.run(command, env=hub.slurm.environment).stdout.strip()
        addresses = dict(reversed(line.split()) for line in hub.slurm.hosts.read_text().splitlines())
        where = addresses[node], int(hub.servers("alice")[""]["state"]["hpcbinder"]["port"])
        variables = environment_of(hub, "alice")
        paths = {name: Path(variables[f"JUPYTERHUB_SSL_{name}"]) for name in ("KEYFILE", "CERTFILE", "CLIENT_CA")}
        inside = hub.log.parent / "internal-ssl"
        authorities = inside / "hub-ca_trust.crt"
        hubs = context(authorities, inside / "hub-internal/hub-internal.crt", inside / "hub-internal/hub-internal.key")
        assert answer_of(*where, hubs) == ("HTTP/1.1 200", (("DNS", node), ("DNS", PUBLIC)))
        assert answer_of(*where, context(authorities))[0] == ""
        assert answer_of(*where, context(authorities, paths["CERTFILE"], paths["KEYFILE"]))[0] == ""
        assert not answer_of(*where)[0].startswith("HTTP")

        # The key is hers, and nowhere else.
        assert paths["KEYFILE"].read_text() == key
        for path in paths.values():
            assert (path.stat().st_mode & 0o777, path.stat().st_uid) == (0o600, alice.uid)
            assert bob.run(["cat", str(path)], check=False).returncode != 0
        assert not sent.exists()
        text = "".join(key.splitlines()[1:-1])[:40].encode()
        for process in alice.processes():
            seen = Path(f"/proc/{process.pid}")
            assert text not in (seen / "cmdline").read_bytes() + (seen / "environ").read_bytes()
        script = alice.run(["scontrol", "write", "batch_script", job, "-"], env=hub.slurm.environment).stdout
        kept = [path for path in [hub.folder, alice.home] for path in path.rglob("*") if path.is_file()]
        assert [path for path in kept if text in path.read_bytes()] == [paths["KEYFILE"]]
        assert text not in script.encode()

        assert hub.request("DELETE", "/users/alice/server", token=hub.token_of("alice"))[0] in (202, 204)
        until(lambda: not alice.processes() and not paths["KEYFILE"].parent.parent.exists(), "nothing is left of it")
        until(lambda: hub.servers("alice")[""]["stopped"], "the hub knows")

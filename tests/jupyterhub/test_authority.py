"""Certificates of servers, shown to Python's TLS in both directions: JupyterHub's own authorities, and no hub."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import threading
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from certipy import Certipy
from cryptography import x509
from jupyterhub.utils import make_ssl_context

from hpcbinder.errors import UsageError
from hpcbinder.jupyterhub import LocalSpawner
from hpcbinder.jupyterhub.authority import Authority
from hpcbinder.runtime.launch import tls
from hpcbinder.runtime.launch.hub import Hub
from hpcbinder.runtime.launch.values import LaunchError


@pytest.fixture(scope="module")
def internal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub's `internal_certs_location` (jupyterhub/app.py, `init_internal_ssl`); the hub is at 127.0.0.1."""
    folder = tmp_path_factory.mktemp("internal-ssl")
    certipy = Certipy(store_dir=str(folder))
    trust = {"hub-ca": ["hub-ca", "notebooks-ca"], "notebooks-ca": ["hub-ca"]}
    certipy.trust_from_graph(trust)
    certipy.create_signed_pair("hub-internal", "hub-ca", alt_names=["IP:127.0.0.1"])
    return folder


def files(folder: Path, **texts: str) -> dict[str, str]:
    """Their paths."""
    for name, text in texts.items():
        (folder / name).write_text(text)
    return {name: str(folder / name) for name in texts}


def meets(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str:
    """Why two do not talk to each other, "" if they do."""
    ours, theirs = socket.socketpair()
    said: list[str] = []

    def serve() -> None:
        try:
            with server.wrap_socket(ours, server_side=True) as connection:
                connection.sendall(connection.recv(10))
        except OSError as error:
            said.append(str(error))
        finally:
            ours.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(theirs, server_hostname=name) as connection:
            connection.sendall(b"hello")
            if connection.recv(10) != b"hello":
                said.append("nothing comes back")
    except OSError as error:
        said.append(str(error))
    finally:
        theirs.close()
        thread.join(30)
    return "; ".join(said)


def test_a_certificate_is_good_for_one_machine_and_for_the_hub_and_its_proxy_alone(
    internal: Path, tmp_path: Path
) -> None:
    authority = Authority(internal)
    made = authority.credentials("alice")
    paths = files(
        tmp_path,
        key=made.key,
        first=made.certificate,
        second=authority.certificate(made.public, "alice", "n1"),
        address=authority.certificate(made.public, "alice", "10.1.2.3"),
    )
    trusted = str(internal / "notebooks-ca_trust.crt")

    def server(certificate: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=trusted)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(paths[certificate], paths["key"])
        return context

    hubs = internal / "hub-internal"
    hub = make_ssl_context(f"{hubs}/hub-internal.key", f"{hubs}/hub-internal.crt", str(internal / "hub-ca_trust.crt"))
    assert meets(server("second"), hub, "n1") == ""
    assert meets(server("address"), hub, "10.1.2.3") == ""
    assert "ostname mismatch" in meets(server("second"), hub, "n2")
    assert "ostname mismatch" in meets(server("second"), hub, "localhost")
    assert "IP address mismatch" in meets(server("address"), hub, "10.1.2.4")
    # With the first one nobody is a server.
    assert "unsuitable certificate purpose" in meets(server("first"), hub, "n1")
    # Nor is a server another server's client, or somebody without a certificate.
    other = make_ssl_context(paths["key"], paths["second"], str(internal / "hub-ca_trust.crt"))
    assert "certificate verify failed" in meets(server("second"), other, "n1")
    nobody = ssl.create_default_context(cafile=str(internal / "hub-ca_trust.crt"))
    assert "did not return a certificate" in meets(server("second"), nobody, "n1")

    certificate = x509.load_pem_x509_certificate(Path(paths["second"]).read_bytes())
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days <= 401
    assert not [path for path in internal.rglob("*") if path.is_file() and made.key in path.read_text()]


@pytest.mark.parametrize(
    "machine",
    ["", "*", "*.example.org", "n1:80", "n 1", "n\N{LATIN SMALL LETTER O WITH DIAERESIS}", "::g", "::", "0.0.0.0"],
)
def test_a_certificate_names_no_more_than_a_machine(internal: Path, machine: str) -> None:
    authority = Authority(internal)
    with pytest.raises(UsageError, match="no name or address"):
        authority.certificate(authority.credentials("alice").public, "alice", "n1", [machine])
    spawner = asking(internal)
    spawner.ip = machine
    with pytest.raises(UsageError, match="to be one machine: .* no name or address"):
        asyncio.run(spawner.credentials("https://10.0.0.1:8081/hub/api"))


def asking(internal: Path, *, trusted: Sequence[str] = (), **settings: object) -> LocalSpawner:
    """A spawner in a hub with internal TLS."""
    spawner = LocalSpawner(internal_ssl=True, trusted_alt_names=list(trusted))
    spawner.internal_certs_location = str(internal)
    spawner.internal_trust_bundles = {"notebooks-ca": str(internal / "notebooks-ca_trust.crt")}
    app = types.SimpleNamespace(**settings)
    spawner.user = types.SimpleNamespace(name="alice", settings={"internal_ssl": True, "app": app, **settings})
    return spawner


@pytest.mark.parametrize(
    "trusted, settings, names",
    [
        # As JupyterHub has them where nothing is said.
        ([], {"public_url": "", "bind_url": "http://:8000"}, []),
        ([], {"public_url": "https://hub.example.org/x/", "bind_url": "http://[::1]:8000/x/"}, ["hub.example.org"]),
        ([], {"public_url": "", "bind_url": "https://Hub.example.org:443"}, ["hub.example.org"]),
        ([], {"public_url": "", "bind_url": "http://*:8000"}, []),
        ([], {"public_url": "", "bind_url": "http+unix://%2Fsrv%2Fproxy.sock"}, []),
        # Names of many hosts, and addresses, are for the hub's own.
        (["DNS:a.example.org", "IP:10.1.0.5", "DNS:*.a.example.org", "DNS:10.1.0.6"], {}, ["a.example.org"]),
        # Where each person has a name of their own, it is that one and not the hub's.
        (
            ["DNS:alice.hub.example.org"],
            {"subdomain_host": "https://hub.example.org", "public_url": "https://hub.example.org/"},
            ["alice.hub.example.org"],
        ),
    ],
)
def test_a_certificate_names_what_browsers_call_the_hub(
    internal: Path, trusted: list[str], settings: dict[str, str], names: list[str]
) -> None:
    spawner = asking(internal, trusted=trusted, **settings)
    made = asyncio.run(spawner.credentials("https://10.0.0.1:8081/hub/api"))
    first = x509.load_pem_x509_certificate(made["certificate"].encode())
    with pytest.raises(x509.ExtensionNotFound):
        first.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    spawner.awaits_port = True
    second = x509.load_pem_x509_certificate(asyncio.run(spawner.certificate()).encode())
    found = second.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each.value) for each in found] == ["127.0.0.1", *names]


def test_a_wrong_public_name_starts_nothing(internal: Path) -> None:
    spawner = asking(internal, trusted=["DNS:hub example.org"])
    with pytest.raises(UsageError, match="trusted_alt_names.*'hub example.org' is no name"):
        asyncio.run(spawner.credentials("https://10.0.0.1:8081/hub/api"))


def test_who_asks_early_has_one_question_and_no_certificate_for_a_later_server(
    internal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcbinder.jupyterhub.tls._PAUSE", 0)
    spawner = asking(internal)
    asyncio.run(spawner.credentials("https://10.0.0.1:8081/hub/api"))
    spawner.awaits_port = True
    asked = []

    async def questions(answer: str, change: Callable[[], None] = lambda: None) -> list[str]:
        found = asyncio.Event()

        async def machine() -> str:
            asked.append(answer)
            await found.wait()
            return answer

        monkeypatch.setattr(spawner, "machine", machine)
        first = asyncio.ensure_future(spawner.certificate())
        while not asked:
            await asyncio.sleep(0)
        others = [await spawner.certificate() for _ in range(3)]
        change()
        found.set()
        return [await first, *others]

    assert asyncio.run(questions("")) == [""] * 4
    assert len(asked) == 4
    asked.clear()
    assert asyncio.run(questions("n1", lambda: setattr(spawner, "job_facts", {"public": "another"}))) == [""] * 4
    assert len(asked) == 1


def test_a_hub_without_its_authority_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="notebooks-ca in .* cannot be used"):
        Authority(tmp_path / "nothing")


@pytest.mark.parametrize(
    "internal_ssl, api, why",
    [
        (False, "https://10.0.0.1:8081/hub/api", "a spawner within another"),
        (True, "http://10.0.0.1:8081/hub/api", "hub_connect_url"),
    ],
)
def test_what_cannot_have_tls_has_no_server_without_it(internal_ssl: bool, api: str, why: str) -> None:
    spawner = LocalSpawner()
    spawner.internal_ssl = internal_ssl
    spawner.user = types.SimpleNamespace(name="alice", settings={"internal_ssl": True})
    with pytest.raises(UsageError, match=why):
        asyncio.run(spawner.credentials(api))


# The launcher's part


@pytest.fixture
def answering(internal: Path) -> Any:
    """A hub that wants to see a certificate, and answers with what it is told to; calls as (URL, requests)."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    servers = []

    def make(
        name: str, answer: Callable[[], tuple[int, bytes]], location: str = ""
    ) -> tuple[str, list[tuple[str, bytes]]]:
        seen: list[tuple[str, bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                seen.append((str(self.headers["Authorization"]), self.rfile.read(length)))
                status, body = answer()
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None: ...

        server = HTTPServer(("127.0.0.1", 0), Handler)
        pair = internal / name / name
        context = make_ssl_context(
            f"{pair}.key", f"{pair}.crt", str(internal / "hub-ca_trust.crt"), purpose=ssl.Purpose.CLIENT_AUTH
        )
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"https://127.0.0.1:{server.server_port}/certificate", seen

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_launcher_gets_its_certificate_with_the_first_one(
    internal: Path, tmp_path: Path, answering: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcbinder.runtime.launch.hub._PAUSE", 0.01)
    authority = Authority(internal)
    made = authority.credentials("alice")
    second = authority.certificate(made.public, "alice", "n1")
    # The scheduler does not say at once where the job runs.
    answers = iter([(503, b""), (200, json.dumps({"certificate": second}).encode())])
    url, seen = answering("hub-internal", lambda: next(answers))
    given = {
        "key": made.key,
        "certificate": made.certificate,
        "authorities": (internal / "notebooks-ca_trust.crt").read_text(),
        "certify": url,
    }
    found = tls.furnish(tmp_path, given, "a token")
    assert seen == [("token a token", b"")] * 2
    assert Path(found.certificate).read_text() == second
    place = tmp_path / "tls"
    assert {path.name: path.stat().st_mode & 0o777 for path in [place, *place.iterdir()]} == {
        "tls": 0o700,
        "key.pem": 0o600,
        "certificate.pem": 0o600,
        "authorities.pem": 0o600,
    }
    # Inside, the command finds them wherever they are seen there.
    words, needed = found.shown(("/bin/sh", "-c", 'echo "$JUPYTERHUB_SSL_KEYFILE" "$1"', "x", "an argument"))
    inside = [needed.get(word[1:-1], word) for word in words]
    assert subprocess.run(inside, capture_output=True, text=True).stdout == f"{found.key} an argument\n"


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"certificate": 7}', b'{"certificate": "x"}', b"[" * 100_000])
def test_an_answer_without_a_certificate_starts_nothing(
    internal: Path, tmp_path: Path, answering: Any, answer: bytes
) -> None:
    made = Authority(internal).credentials("alice")
    url, _ = answering("hub-internal", lambda: (200, answer))
    trusted = (internal / "notebooks-ca_trust.crt").read_text()
    given = {"key": made.key, "certificate": made.certificate, "authorities": trusted, "certify": url}
    with pytest.raises(LaunchError):
        tls.furnish(tmp_path, given, "a token")


def test_who_does_not_show_to_be_the_hub_hears_no_token(
    internal: Path, tmp_path: Path, answering: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(internal)
    made = authority.credentials("alice")
    # A server of the same hub's, on this machine: it has a certificate, and is no hub.
    other = internal / "other"
    other.mkdir(exist_ok=True)
    files(other, **{"other.key": made.key, "other.crt": authority.certificate(made.public, "bob", "127.0.0.1")})
    url, seen = answering("other", lambda: (200, b"{}"))
    trusted = files(tmp_path, trusted=(internal / "notebooks-ca_trust.crt").read_text())["trusted"]
    context = tls.Tls(*files(tmp_path, key=made.key, first=made.certificate).values(), trusted).context()
    with pytest.raises(LaunchError, match="does not show that it is the hub"):
        Hub("a token", context).post(url)
    assert seen == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_token_goes_nowhere_else(internal: Path, tmp_path: Path, answering: Any, status: int) -> None:
    made = Authority(internal).credentials("alice")
    trusted = str(internal / "notebooks-ca_trust.crt")
    context = tls.Tls(*files(tmp_path, key=made.key, first=made.certificate).values(), trusted).context()
    elsewhere, heard = answering("hub-internal", lambda: (200, b"{}"))
    url, seen = answering("hub-internal", lambda: (status, b""), elsewhere)
    with pytest.raises(LaunchError, match=f"leads elsewhere, .* HTTP {status}"):
        Hub("a token", context).post(url)
    assert (len(seen), heard) == (1, [])

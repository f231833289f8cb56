"""Whose certificates are believed, with real servers and authorities made for the test."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest
import requests
import trustme

from hpcbinder.config import SiteConfig
from hpcbinder.errors import FetchError
from hpcbinder.source.reach import Reach
from hpcbinder.source.trust import trust
from hpcbinder.source.web import explained, session

REACH = Reach({"127.0.0.1", "localhost"})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


class Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None: ...


Start = Callable[..., str]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again without waiting."""
    monkeypatch.setattr("urllib3.Retry.sleep", lambda *_: None)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server whose certificate an authority made for some names; its address."""
    with ExitStack() as stack:

        def begin(authority: trustme.CA, *names: str) -> str:
            return stack.enter_context(_serving(authority, names or ("127.0.0.1",)))

        yield begin


@contextmanager
def _serving(authority: trustme.CA, names: tuple[str, ...]) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"https://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


class Tunnel(StreamRequestHandler):
    """A proxy's CONNECT (RFC 9110, 9.3.6), spoken within TLS."""

    def handle(self) -> None:
        target = self.rfile.readline().split()[1].decode()
        while self.rfile.readline().strip():
            pass
        self.server.asked.append(target)  # type: ignore[attr-defined]
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2]))) as server:
            threading.Thread(target=self._back, args=(server,), daemon=True).start()
            while piece := self.rfile.read1():
                server.sendall(piece)

    def _back(self, server: socket.socket) -> None:
        with suppress(OSError):  # one of them has gone
            while piece := server.recv(65536):
                self.wfile.write(piece)


@pytest.fixture
def proxy() -> Iterator[Callable[[trustme.CA], tuple[str, list[str]]]]:
    """Start a proxy that is itself spoken to within TLS; its address, and what it was asked for."""

    class Proxy(ThreadingTCPServer):
        daemon_threads = True
        asked: list[str]

        def handle_error(self, request: Any, client_address: Any) -> None: ...

    with ExitStack() as stack:

        def begin(authority: trustme.CA) -> tuple[str, list[str]]:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)
            server = stack.enter_context(Proxy(("127.0.0.1", 0), Tunnel))
            server.asked = []
            server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(server.shutdown)
            return f"https://127.0.0.1:{server.server_address[1]}", server.asked

        yield begin


def site_of(authority: trustme.CA, path: Path) -> SiteConfig:
    new = path.with_name("new.pem")
    authority.cert_pem.write_to_path(str(new))
    new.replace(path)
    return SiteConfig(ca_certificates=path)


def test_authorities_are_read_once_for_all_connections(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    site, read = site_of(authority, tmp_path / "ca.pem"), []
    addresses = [start(authority), start(authority)]
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", _counting(read))

    def ask(address: str) -> bool:
        return session(site, REACH).get(address).ok

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, addresses * 4))
    assert read == [site.ca_certificates]


def _counting(read: list[Any]) -> Callable[..., None]:
    real = ssl.SSLContext.load_verify_locations

    def load(self: ssl.SSLContext, cafile: Any = None, *rest: Any, **keywords: Any) -> None:
        read.append(cafile)
        real(self, cafile, *rest, **keywords)

    return load


def test_a_service_sees_that_the_file_is_another(start: Start, tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    by_old, by_new = start(old), start(new)
    site = site_of(old, tmp_path / "ca.pem")
    assert session(site, REACH).get(by_old).ok
    with pytest.raises(requests.exceptions.SSLError):
        session(site, REACH).get(by_new)
    site_of(new, tmp_path / "ca.pem")
    assert session(site, REACH).get(by_new).ok
    with pytest.raises(requests.exceptions.SSLError):
        session(site, REACH).get(by_old)


def test_a_certificate_for_another_name_is_none(start: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    site = site_of(authority, tmp_path / "ca.pem")
    with pytest.raises(requests.exceptions.SSLError) as caught:
        session(site, REACH).get(start(authority, "other.example.org"))
    assert "no trust in the server's certificate" in str(explained(caught.value))


def test_a_proxy_that_is_spoken_to_within_tls(
    start: Start, proxy: Callable[[trustme.CA], tuple[str, list[str]]], tmp_path: Path
) -> None:
    authority = trustme.CA()
    site = site_of(authority, tmp_path / "ca.pem")
    address, asked = proxy(authority)
    server = start(authority)
    assert session(replace(site, https_proxy=address), REACH).get(server).ok
    with pytest.raises(requests.exceptions.SSLError):
        session(replace(site, https_proxy=address), REACH).get(start(trustme.CA()))
    assert len(asked) > 1 and asked[0] == server.split("/")[2]
    untrusted, unasked = proxy(trustme.CA())
    with pytest.raises((requests.exceptions.SSLError, requests.exceptions.ProxyError)):
        session(replace(site, https_proxy=untrusted), REACH).get(server)
    assert unasked == []


def test_a_sites_authorities_count_alone(tmp_path: Path) -> None:
    site_of(trustme.CA(), tmp_path / "ca.pem")
    assert len(trust(tmp_path / "ca.pem").get_ca_certs()) == 1
    assert len(trust(None).get_ca_certs()) > 1


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n"])
def test_authorities_that_cannot_be_read(start: Start, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FetchError, match="its certificates cannot be read: .*see site.ca_certificates") as caught:
        session(SiteConfig(ca_certificates=path), REACH).get(start(trustme.CA()))
    assert caught.value.where == str(path)
    assert len(str(caught.value).splitlines()) == 1

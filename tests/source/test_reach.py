"""Where a repository or a dataset may send us."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from hpcbinder.config import SiteConfig
from hpcbinder.errors import FetchError
from hpcbinder.source.reach import Reach
from hpcbinder.source.web import session


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"]
    + [
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
        "::",
        "ff02::1",
    ]
    + ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::1]"],
)
def test_addresses_that_are_not_the_internets(address: str) -> None:
    assert not Reach(()).admits("example.org", address)
    assert Reach({"example.org"}).admits("example.org", address)  # who names a host may mean any


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "example.org"])
def test_addresses_that_are(address: str) -> None:
    assert Reach(()).admits("example.org", address)


def test_a_site_allows_by_globs() -> None:
    reach = Reach((), ["*.site.example", "10.1.*"])
    for url in ("http://git.site.example/x", "https://10.1.2.3/x", "https://GIT.Site.Example/x"):
        reach.check(url)
    for url in ("https://10.2.0.1/x", "http://site.example.org/x"):
        with pytest.raises(FetchError):
            reach.check(url)


class Inner(BaseHTTPRequestHandler):
    hits: list[str]

    def do_GET(self) -> None:
        self.hits.append(self.path)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", f"http://inner.example.org:{self.server.server_address[1]}/secret")
        else:
            self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def inner() -> Iterator[ThreadingHTTPServer]:
    class Handler(Inner):
        hits: list[str] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_name_that_leads_inside_is_not_spoken_with(
    inner: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resolver is a mock: a test cannot have a name server of its own. The connection is a real one."""
    port = inner.server_address[1]
    hits = inner.RequestHandlerClass.hits  # type: ignore[attr-defined]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("127.0.0.1", port))])
    web = session(None, Reach((), plain=True))
    with pytest.raises(FetchError, match="inner.example.org is not on the public Internet"):
        web.get(f"http://inner.example.org:{port}/secret")
    assert hits == []
    web = session(None, Reach({"named.example.org"}, plain=True))
    assert web.get(f"http://named.example.org:{port}/x").status_code == 200
    with pytest.raises(FetchError, match="inner.example.org is not on the public Internet"):
        web.get(f"http://named.example.org:{port}/moved")
    assert hits == ["/x", "/moved"]


def test_no_proxy_is_the_configurations(inner: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    port = inner.server_address[1]
    reach = Reach({"127.0.0.1", "localhost"})
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the environment's are read by the configuration, once
    assert session(None, reach).get(f"http://127.0.0.1:{port}/").ok
    proxied = SiteConfig(http_proxy="http://127.0.0.1:9")
    with pytest.raises(requests.exceptions.ProxyError):
        session(proxied, reach).get(f"http://127.0.0.1:{port}/")
    for no_proxy in ("127.0.0.0/8", "localhost,127.0.0.1", "*"):
        site = SiteConfig(http_proxy="http://127.0.0.1:9", no_proxy=no_proxy)
        assert session(site, reach).get(f"http://127.0.0.1:{port}/").ok


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcbinder.source.web import explained

    monkeypatch.setattr("hpcbinder.source.web._TIMEOUTS", (0.3, 0.3))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(requests.exceptions.Timeout) as caught:
            session(None, Reach({"127.0.0.1"})).get(url)
    assert str(explained(caught.value)) == f"{url}: the server says nothing (try again later)"


def test_why_a_server_cannot_be_reached_is_said_without_our_own_inside() -> None:
    from hpcbinder.source.web import explained

    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"nothing.invalid:{port}"):
        with pytest.raises(requests.exceptions.ConnectionError) as caught:
            session(None, Reach({"127.0.0.1", "nothing.invalid"}, plain=True)).get(f"http://{address}/x")
        assert str(explained(caught.value)).startswith(f"http://{address}/x: cannot reach the server: Failed to ")

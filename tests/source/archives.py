"""Stand-ins for the archives of data and for doi.org, which no test can ask: one local TLS server that answers for all
their names, behind a proxy that leads every name to it, as a site's own `https_proxy` would.

What they answer has the shape of the archives' documented APIs (developers.zenodo.org, docs.figshare.com,
guides.dataverse.org, docs.ckan.org, archive.softwareheritage.org/api, hydroshare.org/hsapi), as far as repo2docker's
content providers and ours look at it.
"""

from __future__ import annotations

import io
import json
import socket
import ssl
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

from hpcbinder.config import SiteConfig

HOSTS = (
    "doi.org",
    "zenodo.org",
    "sandbox.zenodo.org",
    "data.caltech.edu",
    "figshare.com",
    "api.figshare.com",
    "dataverse.example.edu",
    "www.hydroshare.org",
    "s3.hydroshare.org",
    "demo.ckan.org",
    "archive.softwareheritage.org",
    "files.example.org",
    "github.com",
    "git.example.org",
)


@dataclass
class Answer:
    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def data(value: Any, status: int = 200) -> Answer:
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json"})


def moved(url: str) -> Answer:
    return Answer(b"", 302, {"Location": url})


def zipped(files: dict[str, str], *, executable: tuple[str, ...] = ()) -> bytes:
    """A zip file, as git hosts and archives make them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            info = zipfile.ZipInfo(name, (2020, 5, 17, 12, 0, 0))
            info.external_attr = (0o100755 if name in executable else 0o100644) << 16
            archive.writestr(info, text)
    return buffer.getvalue()


def tarred(members: list[tuple[str, str | bytes | tarfile.TarInfo]]) -> bytes:
    """A tar.gz file; a member is a file's bytes, or `->` and a link's target."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, what in members:
            info = tarfile.TarInfo(name)
            if isinstance(what, tarfile.TarInfo):
                what.name = name
                archive.addfile(what)
            elif isinstance(what, str) and what.startswith("->"):
                info.type, info.linkname = tarfile.SYMTYPE, what[2:]
                archive.addfile(info)
            elif what == "/":
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            else:
                body = what.encode() if isinstance(what, str) else what
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


class Archives:
    """The stand-ins.

    Attributes:
        answers: `METHOD https://host/path?query` -> what is answered, or a function that is asked.
        asked: What was asked, in order; `CONNECT host` for each connection through the proxy.
        headers: Those of the last request for an address.
    """

    def __init__(self, site: SiteConfig) -> None:
        self.site = site
        self.answers: dict[str, Answer | Callable[[], Answer]] = {}
        self.asked: list[str] = []
        self.headers: dict[str, dict[str, str]] = {}
        self.bodies: dict[str, bytes] = {}

    def add(self, request: str, answer: Answer | Callable[[], Answer] | bytes) -> None:
        request = request if " " in request else f"GET {request}"
        self.answers[request] = Answer(answer) if isinstance(answer, bytes) else answer

    def doi(self, doi: str, url: str) -> None:
        """Register a DOI, as https://doi.org/api/handles/ tells it."""
        values = [
            {"index": 100, "type": "HS_ADMIN", "data": {"format": "admin", "value": {"handle": "10.admin/codata"}}},
            {"index": 1, "type": "URL", "data": {"format": "string", "value": url}, "ttl": 86400},
        ]
        self.add(f"https://doi.org/api/handles/{doi}", data({"responseCode": 1, "handle": doi, "values": values}))

    @property
    def hosts(self) -> set[str]:
        """The hosts that somebody wanted to talk with."""
        return {line.split(" ")[1].rpartition(":")[0] for line in self.asked if line.startswith("CONNECT ")}


@contextmanager
def archives(folder: Path) -> Iterator[Archives]:
    """Start the stand-ins; the block gets them, their `site` leads there."""
    authority = trustme.CA()
    bundle = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*HOSTS).configure_cert(context)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            url = f"https://{self.headers['Host']}{self.path}"
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            made.asked.append(f"{self.command} {url}")
            made.headers[url] = dict(self.headers)
            made.bodies[url] = body
            found = made.answers.get(f"{self.command} {url}", Answer(b"{}", 404))
            answer = found if isinstance(found, Answer) else found()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None: ...

    with Server(("127.0.0.1", 0), Handler) as server, socket.create_server(("127.0.0.1", 0)) as listening:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        proxy = f"http://127.0.0.1:{listening.getsockname()[1]}"
        made = Archives(SiteConfig(https_proxy=proxy, http_proxy=proxy, ca_certificates=bundle))
        threading.Thread(target=_proxy, args=(listening, server.server_address[1], made), daemon=True).start()
        try:
            yield made
        finally:
            server.shutdown()


def _proxy(listening: socket.socket, port: int, made: Archives) -> None:
    """Answer CONNECT (RFC 9110, 9.3.6) with a way to our server, whatever host is asked for."""
    while True:
        try:
            client, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_tunnel, args=(client, port, made), daemon=True).start()


def _tunnel(client: socket.socket, port: int, made: Archives) -> None:
    head = b""
    with client:
        while b"\r\n\r\n" not in head:
            piece = client.recv(4096)
            if not piece:
                return
            head += piece
        method, target = head.split(b" ")[:2]
        made.asked.append(f"{method.decode()} {target.decode()}")
        if method != b"CONNECT":
            client.sendall(b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", port)) as server:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass

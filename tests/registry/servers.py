"""Registries that do as they are told by a test: a few lines of HTTP instead of the real one, which never lies."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO

from hpcbinder.model import ImageConfig

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker.distribution"


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer(**files: bytes) -> bytes:
    """A layer's tar with these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def config_of(layers: Collection[bytes], architecture: str = "amd64", **run: object) -> bytes:
    """An image configuration for these layers."""
    rootfs = {"type": "layers", "diff_ids": [sha256(content) for content in layers]}
    return json.dumps({"architecture": architecture, "os": "linux", "config": run, "rootfs": rootfs}).encode()


def descriptor(content: bytes, kind: str, **more: object) -> dict[str, object]:
    return {"mediaType": kind, "digest": sha256(content), "size": len(content), **more}


def manifest_of(config: bytes, blobs: Collection[bytes], *, style: str = OCI) -> bytes:
    """A manifest, as OCI or Docker has them."""
    kind = f"{OCI}.layer.v1.tar+gzip" if style == OCI else "application/vnd.docker.image.rootfs.diff.tar.gzip"
    of_config = f"{OCI}.config.v1+json" if style == OCI else "application/vnd.docker.container.image.v1+json"
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json" if style == OCI else f"{DOCKER}.manifest.v2+json",
            "config": descriptor(config, of_config),
            "layers": [descriptor(blob, kind) for blob in blobs],
        }
    ).encode()


@dataclass
class TinyImage:
    """An `OciImage` in memory.

    Attributes:
        asked: What of its layers was asked for, call by call.
    """

    content: tuple[bytes, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    asked: list[list[str]] = field(default_factory=list)

    @property
    def config(self) -> ImageConfig:
        diff_ids = tuple(sha256(content) for content in self.content)
        return ImageConfig("", "amd64", "", self.env, ("/entry",), ("run",), "/srv", self.labels, (), diff_ids)

    def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
        self.asked.append(sorted(wanted))
        for content in dict.fromkeys(self.content):
            if sha256(content) in wanted:
                yield sha256(content), io.BytesIO(content)


Answer = Callable[["Exchange"], None]


class Exchange(BaseHTTPRequestHandler):
    """One request to a `Script`, with short ways to answer it."""

    protocol_version = "HTTP/1.1"
    server: Script

    def say(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """Answer at once. `_` in a header's name stands for `-`."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, length: int, status: int = 200) -> None:
        """Send the head of an answer, whose body the test writes to `wfile`."""
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.close_connection = True

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append((self.command, self.path, dict(self.headers), body))
        path = self.path.partition("?")[0]
        answer = self.server.answers.get(f"{self.command} {path}") or self.server.answers.get(path)
        try:
            if answer is None:
                self.say(404, b'{"errors":[{"code":"UNKNOWN","message":"the test has no answer"}]}')
            elif callable(answer):
                answer(self)
            else:
                self.say(200, answer)
        except (BrokenPipeError, ConnectionResetError):  # who had enough hangs up
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any

    def log_message(self, format: str, *args: object) -> None:
        return


class Script(ThreadingHTTPServer):
    """A server of a test's.

    Attributes:
        answers: `PATH` or `METHOD PATH` -> body, or what answers.
        requests: (method, path, headers, body) of everything it was asked.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.answers: dict[str, bytes | Answer] = {"/v2/": b"{}"}
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def serve_image(self, name: str, config: bytes, blobs: Collection[bytes], tag: str = "1") -> bytes:
        """Be a registry that has an image; its manifest."""
        manifest = manifest_of(config, blobs)
        self.answers[f"/v2/{name}/manifests/{tag}"] = manifest
        self.answers[f"/v2/{name}/manifests/{sha256(manifest)}"] = manifest
        for blob in (config, *blobs):
            self.answers[f"/v2/{name}/blobs/{sha256(blob)}"] = blob
        return manifest

    def asked(self, path: str) -> list[dict[str, str]]:
        """The headers of each request for a path."""
        return [headers for _, asked, headers, _ in self.requests if asked.partition("?")[0] == path]

    def handle_error(self, request: Any, client_address: Any) -> None:
        return


@contextmanager
def script() -> Iterator[Script]:
    """A `Script` that serves until the block ends."""
    server = Script()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()

"""A registry that takes one image from a Docker daemon on this machine, and forgets it.

`docker save` exports every layer each time. `docker push` sends only what the registry lacks, and the daemon remembers
by content what it has sent before: to this registry, which says that it has everything, it sends what is new and no
more. It speaks the part of the OCI distribution spec that a push needs (spec.md, "Push"; the daemon's side is moby
`distribution/push_v2.go`), on loopback, under a name that nobody else can guess; other paths are answered with 404.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

_BLOCK = 1 << 20
_MANIFEST_LIMIT = 4 << 20
"""Bytes of the largest manifest, as in the distribution spec."""
_SILENCE = 300
"""Seconds a connection may be silent; a busy daemon pauses while it compresses."""
_MOST_CONNECTIONS = 64
_TLS_HANDSHAKE = 0x16
"""First byte of what a daemon sends that tries https first (RFC 8446, section 5.1)."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


class Sink:
    """The registry, up from its making to the end of the context.

    Args:
        folder: An existing folder for what comes, the caller's to remove.

    Attributes:
        repository: Name to push to, without a tag.
        asked: Somebody who knows the name was here.
        lacking: Digests of layers that the registry says it does not have; of all others it says that it does.
        failure: Why something could not be taken.
    """

    def __init__(self, folder: Path) -> None:
        self.asked = False
        self.lacking: set[str] = set()
        self.failure: Exception | None = None
        self._folder = folder
        self._name = f"hpcbinder-{secrets.token_hex(16)}"
        self._blobs: dict[str, Path] = {}
        self._manifests: list[dict[str, Any]] = []
        self._uploads: dict[str, _Upload] = {}
        self._server = _Server(("127.0.0.1", 0), self)
        self.repository = f"127.0.0.1:{self._server.server_address[1]}/{self._name}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take no more; what came can still be read."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for upload in list(self._uploads.values()):
            upload.file.close()

    def layers(self, count: int) -> list[str]:
        """Digests (compressed) of the layers of the image that was pushed, from the lowest to the topmost.

        Args:
            count: How many there must be.

        Raises:
            ValueError: No manifest of such an image came.
        """
        for manifest in reversed(self._manifests):
            layers = manifest.get("layers")
            if isinstance(layers, list) and len(layers) == count:
                digests = [layer.get("digest") if isinstance(layer, dict) else None for layer in layers]
                if all(isinstance(digest, str) and _DIGEST.match(digest) for digest in digests):
                    return [str(digest) for digest in digests]
        raise ValueError("no manifest of the image came")

    def blob(self, digest: str) -> Path | None:
        """The file with what was sent under this digest, None if nothing was."""
        return self._blobs.get(digest)

    def has(self, digest: str) -> bool:
        """What is answered when somebody asks whether a blob is here."""
        return digest in self._blobs or digest not in self.lacking

    def begin(self) -> str:
        """Make a place for a blob; returns its name."""
        name = secrets.token_hex(16)
        self._uploads[name] = _Upload(self._folder / f"upload-{name}")
        return name

    def upload(self, name: str) -> _Upload | None:
        """What comes under this name."""
        return self._uploads.get(name)

    def finish(self, name: str, digest: str) -> bool:
        """Keep what came under this name; False if it is not what its digest says."""
        upload = self._uploads.pop(name)
        upload.file.close()
        if f"sha256:{upload.hash.hexdigest()}" != digest:
            upload.path.unlink()
            return False
        self._blobs[digest] = upload.path.replace(self._folder / digest.replace(":", "-"))
        return True

    def cancel(self, name: str) -> None:
        """Forget what came under this name."""
        upload = self._uploads.pop(name)
        upload.file.close()
        upload.path.unlink()

    def take_manifest(self, raw: bytes) -> None:
        """Keep a manifest.

        Raises:
            ValueError: It is none.
        """
        manifest = json.loads(raw)
        if not isinstance(manifest, dict):
            raise ValueError("no object")
        self._manifests.append(manifest)

    def below(self, path: str) -> str | None:
        """The part of a URL's path below our repository's; None for anybody else's."""
        prefix = f"/v2/{self._name}/"
        # Compared in constant time: the name is all that keeps others of this machine out.
        if not secrets.compare_digest(path[: len(prefix)].encode(), prefix.encode()):
            return None
        self.asked = True
        return path[len(prefix) :]


class _Upload:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("xb")
        self.hash = hashlib.sha256()
        self.size = 0

    def take(self, blocks: Iterator[bytes]) -> None:
        for block in blocks:
            self.file.write(block)
            self.hash.update(block)
            self.size += len(block)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], sink: Sink) -> None:
        self.sink = sink
        self._connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._connections) >= _MOST_CONNECTIONS:
            self.shutdown_request(request)
            return
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self._connections):
            with suppress(OSError):  # it ended by itself
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke off is for its other end to tell."""


class _Handler(BaseHTTPRequestHandler):
    """One connection: the requests of a push (distribution spec, "Push"), in any order."""

    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _SILENCE
    disable_nagle_algorithm = True

    def handle(self) -> None:
        try:
            first = self.connection.recv(1, socket.MSG_PEEK)
            if first and first[0] != _TLS_HANDSHAKE:  # a TLS client would wait for ever for an end of a line
                super().handle()
        except OSError:
            pass  # the other end went away, or is silent

    def do_GET(self) -> None:
        """Only so that a client learns that a registry is here; nothing can be had from it."""
        if self.path == "/v2/":
            self._answer(200, b"{}")
        else:
            self._refuse(404, "NAME_UNKNOWN" if self._below() is None else "MANIFEST_UNKNOWN")

    def do_HEAD(self) -> None:
        kind, digest = self._blob_or_upload()
        if kind == "blob" and self.server.sink.has(digest):
            # The size goes into the manifest, where nobody looks at it.
            self._answer(200, None, {"Content-Length": "1", "Docker-Content-Digest": digest})
        else:
            self._refuse(404, "BLOB_UNKNOWN")

    def do_POST(self) -> None:
        kind, name = self._blob_or_upload()
        if kind != "upload" or name:
            self._refuse(404, "NAME_UNKNOWN")
            return
        with self._taking():
            name = self.server.sink.begin()
            if "digest" in self._query():
                self._complete(name)
            else:  # also what is answered to `mount=`: there is nothing to mount
                self._body_to(name)
                self._answer(202, b"", self._place(name))

    def do_PATCH(self) -> None:
        kind, name = self._blob_or_upload()
        if kind != "upload" or self.server.sink.upload(name) is None:
            self._refuse(404, "BLOB_UPLOAD_UNKNOWN")
            return
        with self._taking():
            self._body_to(name)
            self._answer(202, b"", self._place(name))

    def do_PUT(self) -> None:
        below = self._below()
        kind, name = self._blob_or_upload()
        if below is not None and re.fullmatch(r"manifests/[A-Za-z0-9._:-]{1,200}", below):
            self._take_manifest()
        elif kind == "upload" and self.server.sink.upload(name) is not None:
            with self._taking():
                self._complete(name)
        else:
            self._refuse(404, "BLOB_UPLOAD_UNKNOWN")

    def do_DELETE(self) -> None:
        kind, name = self._blob_or_upload()
        if kind == "upload" and self.server.sink.upload(name) is not None:
            with self._taking():
                self.server.sink.cancel(name)
                self._answer(204, b"")
        else:
            self._refuse(404, "BLOB_UPLOAD_UNKNOWN")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged here: the daemon says what it does."""

    def _below(self) -> str | None:
        return self.server.sink.below(urlsplit(self.path).path)

    def _query(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}

    def _blob_or_upload(self) -> tuple[str, str]:
        """What the path names: ("blob", digest), ("upload", name or "" for a new one), or ("", "")."""
        below = self._below() or ""
        if match := re.fullmatch(r"blobs/uploads/([0-9a-f]{32})?", below):
            return "upload", match[1] or ""
        digest = below.removeprefix("blobs/")
        return ("blob", digest) if _DIGEST.match(digest) else ("", "")

    def _complete(self, name: str) -> None:
        digest = self._query().get("digest", "")
        self._body_to(name)
        if not _DIGEST.match(digest) or not self.server.sink.finish(name, digest):
            self._refuse(400, "DIGEST_INVALID")
            return
        location = f"http://{self.server.sink.repository.replace('/', '/v2/', 1)}/blobs/{digest}"
        self._answer(201, b"", {"Location": location, "Docker-Content-Digest": digest})

    def _take_manifest(self) -> None:
        raw = b""
        try:
            for block in self._body():
                raw += block
                if len(raw) > _MANIFEST_LIMIT:
                    raise ValueError("too large")
            self.server.sink.take_manifest(raw)
        except (ValueError, RecursionError):
            self._refuse(400, "MANIFEST_INVALID")
            return
        self._answer(201, b"", {"Docker-Content-Digest": f"sha256:{hashlib.sha256(raw).hexdigest()}"})

    def _body_to(self, name: str) -> None:
        upload = self.server.sink.upload(name)
        assert upload is not None
        upload.take(self._body())

    def _place(self, name: str) -> dict[str, str]:
        upload = self.server.sink.upload(name)
        assert upload is not None
        location = f"http://{self.server.sink.repository.replace('/', '/v2/', 1)}/blobs/uploads/{name}"
        return {"Location": location, "Range": f"0-{max(upload.size - 1, 0)}", "Docker-Upload-UUID": name}

    def _body(self) -> Iterator[bytes]:
        """The request's body, however it is sent (RFC 9112, sections 6 and 7.1).

        Raises:
            ValueError: It is sent in no way we know.
            ConnectionError: It was cut off.
        """
        coding = self.headers.get("Transfer-Encoding", "")
        if not coding:
            yield from self._read(int(self.headers.get("Content-Length", "0")))
            return
        if coding.lower() != "chunked":
            raise ValueError("unknown transfer coding")
        while size := int(self.rfile.readline(1000).partition(b";")[0], 16):
            yield from self._read(size)
            self.rfile.readline(1000)
        while self.rfile.readline(65536).strip():
            pass  # trailers

    def _read(self, size: int) -> Iterator[bytes]:
        if size < 0:
            raise ValueError("a negative length")
        while size:
            block = self.rfile.read(min(size, _BLOCK))
            if not block:
                raise ConnectionError("cut off")
            size -= len(block)
            yield block

    @contextmanager
    def _taking(self) -> Iterator[None]:
        """A disk that is full is an answer, too: one after which the daemon does not try again."""
        try:
            yield
        except ConnectionError:
            raise
        except (OSError, ValueError) as error:
            self.server.sink.failure = error
            self._refuse(403, "DENIED")

    def _refuse(self, status: int, code: str) -> None:
        """Answer with an error (distribution spec, "Error Codes"). What else comes on the connection is not read."""
        self.close_connection = True
        body = json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()
        self._answer(status, None if self.command == "HEAD" else body, {"Connection": "close"})

    def _answer(self, status: int, body: bytes | None, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if body is not None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body or b"")

"""A Git LFS server's batch API (git-lfs docs/api/batch.md) as a stand-in: git hosts have one, git itself has none.
It stands beside git's own `http-backend` (see rig/githttp.py), as at a git host."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gitrepo import Repository

LOGIN = "Basic " + base64.b64encode(b"ann:ge@heim/1").decode()


def pointer(contents: bytes) -> str:
    """The file that a commit holds instead of another (git-lfs docs/spec.md)."""
    oid = hashlib.sha256(contents).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(contents)}\n"


def commit_large(
    repository: Repository, files: dict[str, bytes], *, attributes: str = "*.bin filter=lfs -text\n"
) -> str:
    """Commit pointers, as git-lfs would; the files themselves are nowhere yet."""
    repository.write(".gitattributes", attributes)
    for name, contents in files.items():
        repository.write(name, pointer(contents))
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "-m", "large files")
    return repository.git("rev-parse", "HEAD")


class Server:
    """Attributes:
    url: Where the repositories are.
    objects: oid -> contents that the server has.
    asked: `METHOD path authorization`, in order.
    private: A login is needed for LFS.
    moved: path -> where it is now.
    link: What the address of a download is made of; a test may lead it elsewhere.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.private = False
        self.moved: dict[str, str] = {}
        self.link: Callable[[str], dict[str, Any]] = lambda oid: {"href": f"{url}/store/{oid}"}

    def have(self, *contents: bytes) -> None:
        self.objects |= {hashlib.sha256(c).hexdigest(): c for c in contents}


@contextmanager
def lfs_server(folder: Path) -> Iterator[Server]:
    """Serve the repositories of a folder with LFS at `REPOSITORY.git/info/lfs`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        def _answer(self, body: bytes) -> None:
            made.asked.append(f"{self.command} {self.path} {self.headers.get('Authorization', '')}".strip())
            if self.path in made.moved:
                self._send(307, b"", {"Location": made.moved[self.path]})
            elif self.path.startswith("/store/"):
                contents = made.objects.get(self.path.removeprefix("/store/"))
                self._send(404 if contents is None else 200, contents or b"")
            elif self.path.endswith("/info/lfs/objects/batch"):
                self._batch(body)
            else:
                self._git(body)

        def _batch(self, body: bytes) -> None:
            if made.private and self.headers.get("Authorization") != LOGIN:
                self._send(401, b'{"message": "Credentials needed"}')
                return
            wanted = json.loads(body)
            assert wanted["operation"] == "download" and self.headers["Accept"] == "application/vnd.git-lfs+json"
            objects = [
                {**item, "actions": {"download": made.link(item["oid"])}}
                if item["oid"] in made.objects
                else {**item, "error": {"code": 404, "message": "Object does not exist"}}
                for item in wanted["objects"]
            ]
            self._send(200, json.dumps({"transfer": "basic", "objects": objects}).encode())

        def _git(self, body: bytes) -> None:
            path, _, query = self.path.partition("?")
            environment = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "REMOTE_ADDR": "127.0.0.1",
            }
            done = subprocess.run(
                ["git", "http-backend"], env=environment, input=body, capture_output=True, check=False
            )
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
            self._send(int(headers.pop("Status", "200").split()[0]), content, headers)

        def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {"Content-Type": "application/json"}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Server(f"http://127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield made
        finally:
            server.shutdown()

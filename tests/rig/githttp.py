"""A git server on loopback: git's own `http-backend` behind a few lines of HTTP (gitprotocol-http(5))."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


def commit_folder(source: Path, repository: Path, *, message: str, date: str = "2026-01-01T00:00:00Z") -> str:
    """Make a bare repository of a folder's files, or add a commit to it if they changed.

    Returns:
        The commit of its branch `main`. The same files give the same first commit.
    """
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
        "GIT_DIR": str(repository),
        "GIT_WORK_TREE": str(source),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "hpcbinder",
        "GIT_AUTHOR_EMAIL": "demo@hpcbinder.invalid",
        "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_NAME": "hpcbinder",
        "GIT_COMMITTER_EMAIL": "demo@hpcbinder.invalid",
        "GIT_COMMITTER_DATE": date,
    }

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], env=environment, cwd=source, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    if not repository.exists():
        bare = {k: v for k, v in environment.items() if k not in ("GIT_DIR", "GIT_WORK_TREE")}
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(repository)], env=bare, check=True)
        git("config", "uploadpack.allowAnySHA1InWant", "true")
        git("config", "uploadpack.allowFilter", "true")
    git("add", "-A", "--force", ".")
    head = subprocess.run(["git", "rev-parse", "-q", "--verify", "HEAD"], env=environment, capture_output=True)
    if head.returncode or git("status", "--porcelain"):
        git("commit", "-q", "-m", message)
    return git("rev-parse", "HEAD")


@contextmanager
def serve(folder: Path, *, port: int = 0) -> Iterator[str]:
    """Serve the bare repositories in a folder for reading; the block gets the URL, `http://127.0.0.1:PORT`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            self._backend(b"")

        def do_POST(self) -> None:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                self._backend(b"".join(self._chunks()))
            else:
                self._backend(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def _chunks(self) -> Iterator[bytes]:
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()

        def _backend(self, body: bytes) -> None:
            url = urlsplit(self.path)
            environment = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": url.path,
                "QUERY_STRING": url.query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "REMOTE_ADDR": "127.0.0.1",
            }
            done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True)
            head, _, payload = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
            self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()

"""Over the wire: git's own http server with a login, its daemon, and ssh."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from gitrepo import Listener, Repository

from hpcbinder.config import SiteConfig
from hpcbinder.errors import FetchError
from hpcbinder.source import fetch

LOGIN = "Basic " + base64.b64encode(b"ann:ge@heim/1").decode()


class Smart(BaseHTTPRequestHandler):
    """`git http-backend` as CGI; `/private` wants the login, `/moved` leads to another host."""

    root: str
    seen: list[str]

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        authorization = self.headers.get("Authorization", "")
        self.seen.append(f"{self.headers.get('Host')} {self.path} {authorization}")
        if self.path.startswith("/moved"):
            port = self.server.server_address[1]
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{port}/private{self.path.removeprefix('/moved')}")
            self.end_headers()
            return
        if self.path.startswith("/private") and authorization != LOGIN:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": self.root,
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": unquote(path.removeprefix("/private")),
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        status = next((value for name, value in lines if name == "Status"), "200")
        self.send_response(int(status.split()[0]))
        for name, value in lines:
            if name != "Status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server(repository: Repository) -> Iterator[ThreadingHTTPServer]:
    class Handler(Smart):
        root = str(repository.path.parent)
        seen: list[str] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_http_without_a_login(
    repository: Repository, server: ThreadingHTTPServer, workdir: Path, listener: Listener
) -> None:
    head = repository.commit(a="1")
    repository.commit(a="2")
    url = f"http://127.0.0.1:{server.server_address[1]}/Wave%20Forms.git"
    checkout = fetch(url, ref=head[:9], subdir=None, workdir=workdir, reporter=listener)
    assert (checkout.commit, checkout.source, checkout.name) == (head, url, "wave-forms")


def test_a_login_in_the_url_serves_and_stays_nowhere(
    repository: Repository,
    server: ThreadingHTTPServer,
    workdir: Path,
    listener: Listener,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = repository.commit(a="1")
    (home / ".gitconfig").write_text("[credential]\n helper = store\n")
    monkeypatch.setattr("shutil.rmtree", lambda *args, **kwargs: None)  # leave git's own data to look at
    port = server.server_address[1]
    commands: list[bytes] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    commands.append(path.read_bytes())
                except OSError:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        checkout = fetch(
            f"http://ann:ge%40heim%2F1@127.0.0.1:{port}/private/Wave%20Forms.git",
            ref=None,
            subdir=None,
            workdir=workdir,
            reporter=listener,
        )
    finally:
        stop.set()
        thread.join()
    assert checkout.commit == head
    assert checkout.source == f"http://127.0.0.1:{port}/private/Wave%20Forms.git"
    assert any(b"git\0" in command or b"/git" in command for command in commands)  # the watch was awake
    told = " ".join(listener.lines) + repr(checkout) + b"".join(commands).decode("utf-8", "replace")
    written = b"".join(p.read_bytes() for p in [*workdir.rglob("*"), *home.rglob("*")] if p.is_file())
    for secret in ("ge@heim", "ge%40heim", LOGIN.split()[1]):
        assert secret not in told
        assert secret.encode() not in written


def test_a_wrong_login_and_none_are_one_line_without_a_question(
    repository: Repository, server: ThreadingHTTPServer, workdir: Path, listener: Listener
) -> None:
    repository.commit(a="1")
    port = server.server_address[1]
    for number, login in enumerate(("", "ann@", "ann:falsch@")):
        folder = workdir / str(number)
        folder.mkdir()
        url = f"http://{login}127.0.0.1:{port}/private/Wave%20Forms.git"
        with pytest.raises(FetchError, match="needs a login that git does not have") as caught:
            fetch(url, ref=None, subdir=None, workdir=folder, reporter=listener)
        assert len(str(caught.value).splitlines()) == 1
        assert "falsch" not in str(caught.value)


def test_a_login_goes_to_its_own_host_only(
    repository: Repository, server: ThreadingHTTPServer, workdir: Path, listener: Listener
) -> None:
    repository.commit(a="1")
    url = f"http://ann:ge%40heim%2F1@127.0.0.1:{server.server_address[1]}/moved/Wave%20Forms.git"
    with pytest.raises(FetchError, match="needs a login"):
        fetch(url, ref=None, subdir=None, workdir=workdir, reporter=listener)
    seen = server.RequestHandlerClass.seen  # type: ignore[attr-defined]
    assert any(line.startswith("localhost") for line in seen)
    assert not any(line.startswith("localhost") and "Basic" in line for line in seen)


def test_the_persons_own_credential_helper_is_asked(
    repository: Repository, server: ThreadingHTTPServer, workdir: Path, listener: Listener, home: Path
) -> None:
    head = repository.commit(a="1")
    port = server.server_address[1]
    (home / ".gitconfig").write_text("[credential]\n helper = store\n")
    (home / ".git-credentials").write_text(f"http://ann:ge%40heim%2F1@127.0.0.1%3a{port}\n")
    url = f"http://127.0.0.1:{port}/private/Wave%20Forms.git"
    assert fetch(url, ref=None, subdir=None, workdir=workdir, reporter=listener).commit == head


def test_a_repository_the_server_does_not_have(
    repository: Repository, server: ThreadingHTTPServer, workdir: Path, listener: Listener
) -> None:
    url = f"http://127.0.0.1:{server.server_address[1]}/nothing.git"
    with pytest.raises(FetchError, match=f"^{url}: no such repository: "):
        fetch(url, ref=None, subdir=None, workdir=workdir, reporter=listener)


class Static(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


def test_a_repository_that_is_plain_files_on_a_web_server(
    repository: Repository, workdir: Path, listener: Listener, tmp_path: Path
) -> None:
    """The dumb protocol: no shallow fetch, no single commits, no filters."""
    old = repository.commit(a="1")
    head = repository.commit(a="2")
    bare = tmp_path / "www" / "x.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", repository.path, bare], check=True)
    subprocess.run(["git", "-C", bare, "update-server-info"], check=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Static, directory=str(bare.parent))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/x.git"
        for number, (ref, commit) in enumerate(((None, head), ("main", head), (old, old), (old[:10], old))):
            folder = workdir / str(number)
            folder.mkdir()
            assert fetch(url, ref=ref, subdir=None, workdir=folder, reporter=listener).commit == commit
        server.shutdown()


def test_a_site_proxy_is_used(
    repository: Repository, server: ThreadingHTTPServer, workdir: Path, listener: Listener
) -> None:
    site = SiteConfig(http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9", no_proxy="none")
    url = f"http://127.0.0.1:{server.server_address[1]}/Wave%20Forms.git"
    with pytest.raises(FetchError, match="cannot reach the server: .* port 9"):
        fetch(url, ref=None, subdir=None, workdir=workdir, reporter=listener, site=site)


def test_the_git_daemon(repository: Repository, workdir: Path, listener: Listener) -> None:
    head = repository.commit(a="1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    daemon = subprocess.Popen(
        [
            "git",
            "daemon",
            "--export-all",
            "--listen=127.0.0.1",
            f"--port={port}",
            f"--base-path={repository.path.parent}",
        ],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        url = f"git://127.0.0.1:{port}/Wave%20Forms.git"
        assert fetch(url, ref="main", subdir=None, workdir=workdir, reporter=listener).commit == head
    finally:
        os.killpg(daemon.pid, 15)
        daemon.wait()


def test_ssh_never_asks_and_takes_the_persons_program(
    repository: Repository, workdir: Path, listener: Listener, home: Path, tmp_path: Path
) -> None:
    """A stand-in for ssh that runs the command here: a real sshd cannot be had in every place the tests run."""
    head = repository.commit(a="1")
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o755)
    (home / ".gitconfig").write_text(f'[core]\n sshCommand = {ssh} -i "my key"\n')
    for number, spec in enumerate(
        (f"git@example.org:{repository.path}", f"ssh://ann@example.org:2222{repository.path}")
    ):
        folder = workdir / str(number)
        folder.mkdir()
        checkout = fetch(
            spec.replace(" ", "%20") if "://" in spec else spec,
            ref=None,
            subdir=None,
            workdir=folder,
            reporter=listener,
        )
        assert checkout.commit == head
        assert checkout.name == "wave-forms"
    asked = (tmp_path / "asked").read_text()
    assert "-i my key -o BatchMode=yes" in asked
    assert "git@example.org git-upload-pack" in asked
    assert "-p 2222 ann@example.org git-upload-pack" in asked


def test_ssh_without_a_key_is_one_line(
    repository: Repository, workdir: Path, listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho 'git@example.org: Permission denied (publickey).' >&2\nexit 255\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    with pytest.raises(FetchError) as caught:
        fetch("git@example.org:a/b", ref=None, subdir=None, workdir=workdir, reporter=listener)
    assert str(caught.value).startswith(
        "git@example.org:a/b: needs a login that git does not have, or there is no such repository: "
        "git@example.org: Permission denied (publickey)."
    )


def test_why_ssh_could_not_connect_is_told(
    workdir: Path, listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "ssh"  # OpenSSH ends its lines like this
    ssh.write_text("#!/bin/sh\nprintf 'ssh: connect to host x port 22: Connection refused\\r\\n' >&2\nexit 255\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    with pytest.raises(FetchError, match="cannot reach the server: ssh: .*Connection refused"):
        fetch("git@example.org:a/b", ref=None, subdir=None, workdir=workdir, reporter=listener)

"""Handing images to Shifter's gateway. The gateway is a stand-in that answers as NERSC/shifter's `api.py` and
`imagemngr.py` do: no such gateway can be had here. Credentials are real ones of munge, judged by `unmunge`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from hpcbinder.config import Config, ShifterConfig, SiteConfig
from hpcbinder.errors import RegisterError, UsageError
from hpcbinder.progress import Silent
from hpcbinder.register import import_into_gateway
from rig import RigError, packages


class Gateway(ThreadingHTTPServer):
    """The stand-in.

    Attributes:
        judge: Says of a credential who it is from; None if it is none.
        states: What an import goes through, one for each time it is asked about.
        asked: (method, path, body) of each request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.judge: Any = lambda credential: "ann" if credential else None
        self.allowed = ("ann", "root")
        self.states = ["PENDING", "HASHING", "TRANSFER", "READY"]
        self.ready: dict[str, str] = {}
        self.going: dict[str, tuple[str, list[str]]] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.answer: bytes | None = None


class Handler(BaseHTTPRequestHandler):
    server: Gateway

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET", None)

    def do_POST(self) -> None:
        self._answer("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, method: str, body: Any) -> None:
        gateway = self.server
        gateway.asked.append((method, self.path, body))
        if gateway.answer is not None:
            return self._send(200, gateway.answer)
        user = gateway.judge(self.headers.get("authentication"))
        match = re.fullmatch(r"/api/(doimport|lookup|queue)/(\w+)/(?:custom/(.+)/)?", unquote(self.path))
        if user is None or match is None or match[2] != "cluster":
            return self._json(404, {"status": 404, "error": "Bad session or system", "message": "Not Found: x"})
        action, tag = match[1], match[3]
        if action == "queue":
            listed = []
            for name, (id_, states) in list(gateway.going.items()):
                state = states.pop(0)
                if state == "READY":
                    gateway.ready[name] = id_
                    del gateway.going[name]
                else:
                    listed.append({"status": state, "image": name})
                    if state == "FAILURE":
                        states.append(state)
            return self._json(200, {"list": listed})
        if action == "lookup":
            if tag not in gateway.ready:
                return self._json(404, {"status": 404, "error": "image not found", "message": "Not Found: x"})
            return self._json(200, self._record(tag, gateway.ready[tag], "READY"))
        if user not in gateway.allowed:
            error = f"<class 'OSError'> User {user} not allowed to import image from file."
            return self._json(404, {"status": 404, "error": error, "message": "Not Found: x"})
        if tag in gateway.ready and not gateway.states:  # too young to be looked for anew
            return self._json(200, self._record(tag, gateway.ready[tag], "READY"))
        try:
            raw = Path(body["filepath"]).read_bytes()
        except OSError:
            gateway.going[tag] = ("MISSING", ["FAILURE"])
        else:
            gateway.going[tag] = (hashlib.sha256(raw[: 1 << 20]).hexdigest(), list(gateway.states))
        return self._json(200, self._record(tag, "MISSING", "PENDING"))

    def _record(self, tag: str, id_: str, status: str) -> dict[str, Any]:
        missing = dict.fromkeys(("ENV", "ENTRY", "WORKDIR", "LABELS", "last_pull"), "MISSING")
        record = {"id": id_, "system": "cluster", "itype": "custom", "tag": [tag], "userACL": [], "groupACL": []}
        return {**missing, **record, "status": status, "status_message": ""}

    def _json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode())

    def _send(self, status: int, raw: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.squashfs"
    path.write_bytes(b"hsqs" * 1000)
    return path


@pytest.fixture
def munge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `munge` that gives what looks like a credential."""
    return program(tmp_path, monkeypatch, '[ "$*" = -n ] && echo "MUNGE:AwQFAAB+/=:"')


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    path = folder / "bin" / "munge"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    return path


def config(url: str | None, system: str | None = "cluster") -> Config:
    site = SiteConfig(http_proxy=None, https_proxy=None, no_proxy=())
    return Config(shifter=ShifterConfig(gateway=url, system=system), site=site)


def bring(gateway: Gateway, image: Path, tag: str = "x:1", **changes: Any) -> str:
    return import_into_gateway(image, tag, config(gateway.url), Silent(), **{"pause": 0.001, **changes})


@pytest.mark.usefixtures("munge")
class TestImport:
    def test_it_waits_until_the_image_is_ready(self, gateway: Gateway, image: Path) -> None:
        assert bring(gateway, image, "group/x:1") == hashlib.sha256(image.read_bytes()).hexdigest()
        (posted,) = [request for request in gateway.asked if request[0] == "POST"]
        assert posted[1:] == (
            "/api/doimport/cluster/custom/group/x:1/",
            {"filepath": str(image), "format": "squashfs"},
        )

    def test_another_image_takes_the_tag(self, gateway: Gateway, image: Path) -> None:
        gateway.ready["x:1"] = "0" * 64
        assert bring(gateway, image) == hashlib.sha256(image.read_bytes()).hexdigest()

    def test_the_same_again_is_at_once_there(self, gateway: Gateway, image: Path) -> None:
        first = bring(gateway, image)
        gateway.states = []
        assert bring(gateway, image) == first

    def test_a_tag_that_the_gateway_keeps_for_a_while(self, gateway: Gateway, image: Path) -> None:
        gateway.ready["x:1"], gateway.states = "0" * 64, []
        with pytest.raises(RegisterError, match="keeps another image as x:1"):
            bring(gateway, image)

    def test_a_failure_is_one_clear_error(self, gateway: Gateway, image: Path) -> None:
        gateway.states = ["PENDING", "FAILURE"]
        with pytest.raises(RegisterError, match="could not import x:1") as raised:
            bring(gateway, image)
        assert str(image) in str(raised.value.hint)
        assert raised.value.exit_code == 7

    def test_patience_ends(self, gateway: Gateway, image: Path) -> None:
        gateway.states = ["PENDING"] * 10_000
        with pytest.raises(RegisterError, match="x:1 is not ready after 0 s"):
            bring(gateway, image, patience=0.05)

    def test_who_may_not_is_told(self, gateway: Gateway, image: Path) -> None:
        gateway.allowed = ("bob",)
        with pytest.raises(RegisterError, match="refuses to import.*User ann not allowed") as raised:
            bring(gateway, image)
        assert "ImportUsers" in str(raised.value.hint)

    @pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"status": "READY", "id": 7}', b"[" * 100_000, b""])
    def test_what_is_no_gateway(self, gateway: Gateway, image: Path, answer: bytes) -> None:
        gateway.answer = answer
        with pytest.raises(RegisterError, match="no Shifter gateway|no image's record"):
            bring(gateway, image)

    def test_an_endless_answer_ends(self, gateway: Gateway, image: Path) -> None:
        gateway.answer = b" " * (9 << 20)
        with pytest.raises(RegisterError, match="answer is larger"):
            bring(gateway, image)

    def test_nobody_is_there(self, image: Path) -> None:
        with pytest.raises(RegisterError, match="Shifter's gateway: "):
            import_into_gateway(image, "x:1", config("http://127.0.0.1:1"), Silent())

    @pytest.mark.parametrize("tag", ["", "x", "X:1", "x:", "../x:1 ", "x:1/../y", "x:1?y", "-x:1", "x\n:1"])
    def test_a_tag_that_cannot_be(self, gateway: Gateway, image: Path, tag: str) -> None:
        with pytest.raises(UsageError, match="cannot be an image's name"):
            bring(gateway, image, tag)
        assert gateway.asked == []

    @pytest.mark.parametrize(("url", "system"), [(None, "cluster"), ("http://127.0.0.1:1", None)])
    def test_it_must_be_configured(self, image: Path, url: str | None, system: str | None) -> None:
        with pytest.raises(UsageError, match="no Shifter gateway is configured"):
            import_into_gateway(image, "x:1", config(url, system), Silent())


@pytest.mark.parametrize(
    "script", ["echo 'munge: Error: Socket communication' >&2; exit 6", "printf 'MUNGE:a\\nEvil: 1:'", "exit 0"]
)
def test_without_a_credential_nothing_is_asked(
    gateway: Gateway, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    program(tmp_path, monkeypatch, script)
    with pytest.raises(RegisterError, match="munge gives no credential"):
        bring(gateway, image)
    assert gateway.asked == []


@pytest.fixture
def munged(tmp_path: Path) -> Iterator[list[str]]:
    """A real munged with a key of its own; the option that names its socket."""
    if os.geteuid() != 0:
        pytest.skip("munged with a socket of its own needs root here")
    try:
        packages.ensure(["munge"])
    except RigError as error:
        pytest.skip(str(error))
    key, socket = tmp_path / "key", tmp_path / "socket"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    files = [f"--{name}-file={tmp_path / name}" for name in ("key", "log", "pid", "seed")]
    daemon = subprocess.Popen(
        ["munged", "--foreground", "--force", f"--socket={socket}", *files],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 20
        while not socket.exists() and time.monotonic() < end and daemon.poll() is None:
            time.sleep(0.01)
        assert socket.exists()
        yield [f"--socket={socket}"]
    finally:
        daemon.terminate()
        daemon.wait(20)
        with contextlib.suppress(FileNotFoundError):
            socket.unlink()


@pytest.mark.rig
def test_every_request_has_a_fresh_credential_of_munge(
    gateway: Gateway, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, munged: list[str]
) -> None:
    program(tmp_path, monkeypatch, f'exec /usr/bin/munge {munged[0]} "$@"')

    def judge(credential: str) -> str | None:
        """As `munge.py` of the gateway: `unmunge` refuses what was seen before."""
        done = subprocess.run(
            ["unmunge", *munged], input=credential.encode(), capture_output=True, check=False, timeout=20
        )
        user = re.search(rb"^UID: +(\S+)", done.stdout, re.M)
        return user[1].decode() if done.returncode == 0 and user else None

    gateway.judge = judge
    assert bring(gateway, image) == hashlib.sha256(image.read_bytes()).hexdigest()
    assert len(gateway.asked) >= 6

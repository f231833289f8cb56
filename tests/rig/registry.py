"""A registry of images on loopback: Debian's docker-registry (the distribution project's), a process of the rig's."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import packages
from .process import Process, RigError, locked

PACKAGES = ("docker-registry",)
_PROGRAM = "/usr/bin/docker-registry"
_START_SECONDS = 20


class Registry:
    """A registry that keeps its images in a folder. Docker and we speak with it without encryption, for it is local.

    Args:
        folder: The rig's state folder.
        name: The folder in it.
        auth: Its configuration's `auth` (distribution, docs/configuration.md): none lets everybody in.
    """

    name = "registry"

    def __init__(self, folder: Path, name: str = "registry", auth: Mapping[str, Any] | None = None) -> None:
        self.folder = folder / name
        self._pid = self.folder / "registry.json"
        self._port = self.folder / "port"
        self._auth = dict(auth or {})
        self.log = self.folder / "registry.log"

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`: in front of an image's name."""
        return f"127.0.0.1:{self._port.read_text()}"

    @property
    def where(self) -> str:
        """The address, for a person."""
        return self.host if self._port.exists() else "no address yet"

    @property
    def up(self) -> bool:
        """Whether it runs and answers."""
        return Process.load(self._pid) is not None and self._answers()

    def start(self) -> None:
        """Bring it up, or find it up.

        Raises:
            RigError: The package cannot be had, or it does not come up (with the end of its log).
        """
        if self.up:
            return
        packages.ensure(PACKAGES)
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        with locked(self.folder / "lock"):
            if not self.up:
                self._stop()
                self._spawn()

    def stop(self) -> None:
        """End it. Its images stay as a cache."""
        if self.folder.is_dir():
            with locked(self.folder / "lock"):
                self._stop()

    def _spawn(self) -> None:
        with socket.socket() as probe:  # a port of its own, whatever else listens here
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._port.write_text(str(port))
        settings = self.folder / "config.yml"
        # YAML takes JSON.
        settings.write_text(
            json.dumps(
                {
                    "version": 0.1,
                    "log": {"level": "warn"},
                    "storage": {
                        "filesystem": {"rootdirectory": str(self.folder / "data")},
                        "delete": {"enabled": True},
                    },
                    "http": {"addr": f"127.0.0.1:{port}", "secret": "the rig's"},
                    **({"auth": self._auth} if self._auth else {}),
                }
            )
        )
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pid = os.posix_spawn(
                _PROGRAM,
                [_PROGRAM, "serve", str(settings)],
                {"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},
                setsid=True,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, null, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
            )
        finally:
            os.close(log)
            os.close(null)
        with contextlib.suppress(ProcessLookupError):
            Process.of(pid).save(self._pid)
        end = time.monotonic() + _START_SECONDS
        while not self._answers():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            if Process.load(self._pid) is None or time.monotonic() > end:
                self._stop()
                lines = self.log.read_text(errors="replace").splitlines()[-15:]
                raise RigError("\n".join([f"docker-registry did not come up; the end of {self.log}:", *lines]))
            time.sleep(0.02)

    def _stop(self) -> None:
        process = Process.load(self._pid)
        if process is not None:
            process.stop(10)
        self._pid.unlink(missing_ok=True)

    def _answers(self) -> bool:
        if not self._port.exists():
            return False
        connection = http.client.HTTPConnection(self.host, timeout=5)
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status in (200, 401)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@contextlib.contextmanager
def private_registry(folder: Path, auth: Mapping[str, Any]) -> Iterator[Registry]:
    """A registry that wants a login, for the block; nothing of it stays."""
    registry = Registry(folder, "registry", auth)
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()
        shutil.rmtree(registry.folder)

"""A hub's server where it was sent to run: `python launch.py --server`, beside it server.json of the hub.

    {"environment": {NAME: VALUE, …},      the hub's variables, secrets among them
     "ports": [LOWEST, HIGHEST],           of which one is taken
     "report": URL,                        that is told which, once the server answers there
     "fresh": true | false,                a fresh copy of the repository is wanted
     "tls": {…}}                           for a hub whose internal TLS is on (`tls`), else {}

server.json is read once and removed at once, and the whole folder with the end: nothing of it is in an argument, in the
batch system's records or in anybody else's sight.
"""

# Paths are text here: they become words of a command line.

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import space as spaces
from .hub import Hub
from .supervise import supervise
from .tls import furnish
from .values import Command, LaunchError

Prepare = Callable[..., Command]
"""`starting.prepare`."""

_TRIES = 300
_LISTEN = "0A"
"""State of a listening socket (proc(5), Linux include/net/tcp_states.h)."""


def main(folder: Path, prepare: Prepare) -> int:
    """Run the server to its end; returns its exit code.

    Args:
        folder: Where launch.json and server.json lie; it is removed.
        prepare: Says how a description is run here.

    Raises:
        LaunchError: It cannot be run here.
        OSError, ValueError: The files cannot be read.
    """
    # Whoever ends this before there is a server to end leaves nothing behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        settings = _taken(folder / "server.json")
        description = json.loads((folder / "launch.json").read_text(encoding="utf-8"))
        return _serve(folder, description, settings, prepare)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _taken(file: Path) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LaunchError("this server was started before: a job of it is not started again") from None
    file.unlink()
    return settings


def _serve(folder: Path, description: dict[str, Any], settings: Mapping[str, Any], prepare: Prepare) -> int:
    environ = {**os.environ, **settings["environment"]}
    hub = Hub(environ["JUPYTERHUB_API_TOKEN"])
    argv, files = tuple(description["argv"]), dict[str, str]()
    if settings["tls"]:
        tls = furnish(folder, settings["tls"], hub.token)
        hub = Hub(hub.token, tls.context())
        argv, files = tls.shown(argv)
    port = _free_port(*settings["ports"])
    environ["JUPYTERHUB_SERVICE_URL"] = _with_port(environ["JUPYTERHUB_SERVICE_URL"], port)
    cwd = environ.get("HOME", "/")
    if "space" in description:
        space = spaces.read_space(description["space"])
        own = {name: value for name, value in environ.items() if name not in settings["environment"]}
        prepared = spaces.prepare(space, description, environ=own, fresh=settings["fresh"])
        for notice in prepared.notices:
            print(f"hpcbinder: {notice}", file=sys.stderr, flush=True)
        description, cwd = prepared.described(description), prepared.folder
    command = prepare(description, environ=environ, cwd=cwd, argv=argv, files=files)
    for note in command.notes:
        print(f"hpcbinder: {note}", file=sys.stderr, flush=True)
    _fork_reporter(hub, settings["report"], port)
    return supervise(command)


def _free_port(lowest: int, highest: int) -> int:
    for _ in range(_TRIES):
        port = lowest + secrets.randbelow(highest - lowest + 1)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    continue
                raise
            return port
    raise LaunchError(f"no port from {lowest} to {highest} is free on {socket.gethostname()}")


def _with_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return parts._replace(netloc=f"{host}:{port}").geturl()


def _fork_reporter(hub: Hub, url: str, port: int) -> None:
    """Have a process of its own wait until the server listens, and tell the hub; it ends the server should the hub not
    want it."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    if os.fork():
        return
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        why = _wait_and_report(hub, url, port, parent)
        if why:
            print(f"hpcbinder: {why}", file=sys.stderr, flush=True)
            os.kill(parent, signal.SIGTERM)
        code = 0
    finally:
        os._exit(code)


def _wait_and_report(hub: Hub, url: str, port: int, parent: int) -> str:
    """Returns why the server is to end, "" if it is not."""
    while (owner := _listener(port)) is None:
        if os.getppid() != parent:
            return ""
        time.sleep(0.05)
    if owner != os.getuid():
        # Else the hub would send this person's browser to somebody else's program.
        return f"somebody else's program took port {port} in that moment: start the server again"
    try:
        hub.post(url, json.dumps({"port": port}).encode(), while_=lambda: os.getppid() == parent)
    except LaunchError as error:
        return str(error)
    return ""


def _listener(port: int) -> int | None:
    """Whose socket listens at a port: a user id, None while there is none (proc(5), /proc/net/tcp)."""
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(name).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                return int(fields[7])
    return None

"""The far end of a hub's SSH connection: starts a server that outlives it, looks after it, ends it.

This file is sent over the connection and run by the Python of the other machine, so it takes nothing but the standard
library (3.9) and what is sent along (`sent`). What it is to do follows on standard input as one JSON object, the answer
is one line of standard output: the request's `mark`, then JSON. Shells of persons like to print things, too.

    {"do": "start", "mark": …, "files": {PATH: TEXT}, "command": [WORD, …], "environment": {NAME: VALUE, …}}
        -> {"server": {"pid": …, "started": …, "boot": …, "machine": …, "folder": …}}
    {"do": "look", "mark": …, "server": {…}}    -> {"running": true} or {"running": false, "code": …, "said": …}
    {"do": "stop", "mark": …, "server": {…}, "patience": SECONDS}                       -> the same
    anything that cannot be done                                                        -> {"error": WHY}

`{folder}` in a word of `command` is where the files lie; `environment`, where there is one, is all that the server gets
of it, else it has the connection's. Secrets are in files, which are the person's alone and go with the server, never in
arguments.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from hpcbinder.runtime import OpenToOthersError, held

_SAID = 4000
"""Bytes of a log's end that are told."""
_KEPT = 7 * 86400.0
"""Seconds that the log of a server which has ended is kept."""
_REQUEST = 8 << 20


class _Refused(Exception):
    """Cannot be done; the text says why."""


def main() -> None:
    """Read a request, do it, answer."""
    request = json.loads(sys.stdin.buffer.read(_REQUEST))
    todo = {"start": _start, "look": _look, "stop": _stop}[request["do"]]
    try:
        answer = todo(request)
    except (_Refused, OSError) as error:
        answer = {"error": str(error)}
    sys.stdout.write(f"\n{request['mark']}{json.dumps(answer)}\n")
    sys.stdout.flush()


def _start(request: dict[str, Any]) -> dict[str, Any]:
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    place = home / ".local" / "state" / "hpcbinder" / "servers"
    mask = os.umask(0o077)
    try:
        # By path, and later, the launcher is opened.
        os.close(held(str(place), make=True))
    except OpenToOthersError as error:
        raise _Refused(f"no place for a server: {error}") from None
    _forget_old(place)
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        for name, text in request["files"].items():
            path = folder / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        command = [word.replace("{folder}", str(folder / "files")) for word in request["command"]]
        server = _apart(command, request.get("environment"), home, folder, mask)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return {"server": server}


def _forget_old(place: Path) -> None:
    for folder in place.iterdir():
        try:
            old = time.time() - (folder / "ended").stat().st_mtime > _KEPT
        except OSError:
            continue
        if old:
            shutil.rmtree(folder, ignore_errors=True)


def _apart(
    command: list[str], environment: dict[str, str] | None, home: Path, folder: Path, mask: int
) -> dict[str, Any]:
    """Start the command below a watcher that has a session of its own, as a daemon has."""
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.close(read_end)
        os.setsid()
        _watch(command, environment, home, folder, mask, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as answer:
        told = json.loads(answer.read() or b'{"error": "the server\'s watcher died"}')
    if "error" in told:
        raise _Refused(told["error"])
    return {**told, "boot": _boot(), "machine": socket.gethostname(), "folder": str(folder)}


def _watch(
    command: list[str], environment: dict[str, str] | None, home: Path, folder: Path, mask: int, answer: int
) -> NoReturn:
    try:
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDWR)
        for number, descriptor in enumerate((null, log, log)):
            os.dup2(descriptor, number)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if environment is None:
            # The connection's own variables lead to an agent and to a terminal that are gone when it is.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("SSH_")}
        child = subprocess.Popen(command, env=environment, cwd=home, umask=mask)
        # A server told to end ends its kernels first.
        signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
    except OSError as error:
        os.write(answer, json.dumps({"error": str(error)}).encode())
        os._exit(1)
    pid = os.getpid()
    try:
        os.write(answer, json.dumps({"pid": pid, "started": _started(pid)}).encode())
    except OSError:
        child.terminate()  # who asked is gone, and nobody will know of it
    os.close(answer)
    code = child.wait()
    partial = folder / "ended.partial"
    partial.write_text(str(code))
    partial.replace(folder / "ended")
    shutil.rmtree(folder / "files", ignore_errors=True)
    os.killpg(0, signal.SIGKILL)  # and what it left behind
    os._exit(0)


def _look(request: dict[str, Any]) -> dict[str, Any]:
    server = request["server"]
    return {"running": True} if _runs(server) else _ended(server)


def _stop(request: dict[str, Any]) -> dict[str, Any]:
    server = request["server"]
    for signum, patience in ((signal.SIGTERM, float(request["patience"])), (signal.SIGKILL, 5.0)):
        if not _runs(server):
            break
        try:
            # The watcher passes the wish to end on; a kill takes its whole group, and what is below ends with that.
            if signum == signal.SIGTERM:
                os.kill(server["pid"], signum)
            else:
                os.killpg(server["pid"], signum)
        except ProcessLookupError:
            pass
        end = time.monotonic() + patience
        while _runs(server) and time.monotonic() < end:
            time.sleep(0.05)
    return {"running": True} if _runs(server) else _ended(server)


def _runs(server: dict[str, Any]) -> bool:
    """Whether it is still that very process: its number may be another's by now."""
    if server["machine"] != socket.gethostname():
        raise _Refused(f"this is {socket.gethostname()}, and the server is on {server['machine']}")
    return bool(server["boot"] == _boot() and server["started"] == _started(server["pid"]))


def _ended(server: dict[str, Any]) -> dict[str, Any]:
    code, said = None, b""
    folder = Path(server["folder"])
    try:
        code = int((folder / "ended").read_text())
    except (OSError, ValueError):
        pass
    try:
        with (folder / "log").open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _SAID))
            said = log.read(_SAID)
    except OSError:
        pass
    return {"running": False, "code": code, "said": said.decode(errors="replace")}


def _started(pid: int) -> int:
    """Field 22 of proc(5)'s stat, clock ticks from the boot; -1 for none, or a zombie."""
    try:
        fields = Path(f"/proc/{pid:d}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return -1
    return -1 if fields[0] in (b"Z", b"X") else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()

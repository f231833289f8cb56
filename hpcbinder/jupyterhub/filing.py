"""What a server's job needs to find in the person's home, put there and taken away again as that person.

This file is sent to a Python that runs as the person, so it takes nothing but the standard library (3.9) and what is
sent along (`sent`). What it is to do follows on standard input as one JSON object, the answer is one line of standard
output: the request's `mark`, then JSON.

    {"do": "put", "mark": …, "place": FOLDER, "server": NAME, "files": {PATH: TEXT}}   -> {"folder": …, "log": …}
    {"do": "tail", "mark": …, "log": PATH}                                             -> {"said": TEXT}
    {"do": "remove", "mark": …, "folder": PATH}                                        -> {}
    anything that cannot be done                                                       -> {"error": WHY}

A server has one folder at a time, which its launcher removes when it ends, and one log, which the next start empties.
"""

# Paths are text here: this program is one file for whatever Python is there.
# ruff: noqa: PTH103, PTH108, PTH120, PTH118, PTH123, PTH208, UP031

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
import tempfile
from typing import Any

from hpcbinder.runtime import OpenToOthersError, held

_SAID = 4000
"""Bytes of a log's end that are told."""
_REQUEST = 8 << 20
_SERVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


class _Refused(Exception):
    """Cannot be done; the text says why."""


def main() -> None:
    """Read a request, do it, answer."""
    request = json.loads(sys.stdin.buffer.read(_REQUEST))
    os.umask(0o077)
    todo = {"put": _put, "tail": _tail, "remove": _remove}[request["do"]]
    try:
        answer = todo(request)
    except (_Refused, OSError) as error:
        answer = {"error": str(error)}
    sys.stdout.write(f"\n{request['mark']}{json.dumps(answer)}\n")
    sys.stdout.flush()


def _put(request: dict[str, Any]) -> dict[str, Any]:
    place, server = request["place"], request["server"]
    if not _SERVER.fullmatch(server):
        raise _Refused("not a name for a folder: %r" % server)
    try:
        # No group's folder on the way: by path, and later, the batch system opens the log, and Python the launcher.
        os.close(held(place, make=True))
    except OpenToOthersError as error:
        raise _Refused("no place for a server: %s" % error) from None
    # What a node that died has left, or a job that was cancelled before it began.
    for name in os.listdir(place):
        if re.fullmatch(re.escape(server) + r"~[a-z0-9_]{8}", name):
            shutil.rmtree(os.path.join(place, name), ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=server + "~", dir=place)
    try:
        for name, text in request["files"].items():
            path = os.path.normpath(os.path.join(folder, name))
            if not path.startswith(folder + "/"):
                raise _Refused("not a name for a file: %r" % name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        log = os.path.join(place, server + ".log")
        if os.path.lexists(log):
            os.unlink(log)
        os.close(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return {"folder": folder, "log": log}


def _tail(request: dict[str, Any]) -> dict[str, Any]:
    try:
        descriptor = os.open(request["log"], os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return {"said": ""}
    with os.fdopen(descriptor, "rb") as log:
        about = os.fstat(log.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise _Refused("the log is no file")
        log.seek(max(0, about.st_size - _SAID))
        return {"said": log.read(_SAID).decode(errors="replace")}


def _remove(request: dict[str, Any]) -> dict[str, Any]:
    shutil.rmtree(request["folder"], ignore_errors=True)
    return {}

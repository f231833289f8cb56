"""What a server's job needs to find in the person's home, put there and taken away again as that person.

This file is sent to a Python that runs as the person, so it stands alone and takes nothing but the standard library
(3.9). What it is to do follows on standard input as one JSON object, the answer is one line of standard output: the
request's `mark`, then JSON.

    {"do": "put", "mark": …, "place": FOLDER, "server": NAME, "files": {PATH: TEXT}}   -> {"folder": …, "log": …}
    {"do": "tail", "mark": …, "log": PATH}                                             -> {"said": TEXT}
    {"do": "remove", "mark": …, "folder": PATH}                                        -> {}
    anything that cannot be done                                                       -> {"error": WHY}

A server has one folder at a time, which its launcher removes when it ends, and one log, which the next start empties.
"""

# Paths are text here: this program is one file for whatever Python is there.
# ruff: noqa: PTH103, PTH108, PTH115, PTH116, PTH120, PTH118, PTH123, PTH208, UP031

from __future__ import annotations

import errno
import grp
import json
import os
import pwd
import re
import shutil
import stat
import sys
import tempfile
from typing import Any

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
    os.makedirs(place, exist_ok=True)
    if why := _others_at(place):
        raise _Refused("no place for a server: " + why)
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


def _others_at(path: str) -> str:
    """Who else may put something in a folder's place: "" for nobody, else a reason, one line. The same as
    `hpcbinder.runtime.launch.private` has, which is not there.

    Every part of its path, and of links on the way, is the person's own or root's, and open to no other writers: all
    that is to be found below it could be moved away, and something else be put there. A folder where everybody may
    write but nobody move what is another's (/tmp) is none of them. The home is the account's, however it got there.

    Args:
        path: Absolute, of a folder that is there.

    Raises:
        OSError: It cannot be looked at.
    """
    me, root = os.geteuid(), (0, os.stat("/").st_uid)
    try:
        home = pwd.getpwuid(me).pw_dir
    except KeyError:
        home = ""
    homes = tuple(name.rstrip("/") + "/" for name in (home, os.path.realpath(home)) if home)
    at, closed, links = "/", False, 0
    parts = path.split("/")[::-1]
    while parts:
        part = parts.pop()
        if part in ("", "."):
            continue
        if part == "..":
            at, closed = os.path.dirname(at), False
            continue
        there = os.path.join(at, part)
        about = os.lstat(there)
        above_home = any(name.startswith(there + "/") for name in homes)
        if about.st_uid not in (me, *root) and not above_home:
            return f"{there} belongs to somebody else"
        if stat.S_ISLNK(about.st_mode):
            links += 1
            if links > 40:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(there)
            parts.extend(target.split("/")[::-1])
            if target.startswith("/"):
                at, closed = "/", False
            continue
        mode = about.st_mode
        shared = mode & 0o002 or (mode & 0o020 and about.st_gid != 0 and not _has_one_member(about.st_gid))
        if shared and not mode & stat.S_ISVTX and not above_home and not closed:
            return f"others can write to {there} (chmod go-w)"
        # What others cannot even enter, they cannot write to further down.
        closed = closed or not mode & 0o011
        at = there
    return ""


def _has_one_member(gid: int) -> bool:
    """Whether it is the person's own group, as most systems give everybody one (pam_umask(8), usergroups)."""
    try:
        me, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == me.pw_gid and group.gr_name == me.pw_name and set(group.gr_mem) <= {me.pw_name}


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

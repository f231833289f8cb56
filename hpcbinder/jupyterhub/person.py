"""A person's own images, read as that person.

A hub may be root, and a home is its owner's: a link there leads where it likes, a file there is what it likes. So
nothing of it is opened here. `hpcbinder` itself runs as the person, for a while and for so many bytes, and what it
prints is as good as that person's word: it is checked like everybody's, and only they are shown it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcbinder.catalog import build
from hpcbinder.errors import CatalogError, HpcbinderError, UsageError
from hpcbinder.jupyterhub.environment import Environment
from hpcbinder.jupyterhub.listing import environment
from hpcbinder.model import Entry
from hpcbinder.register import Published, checked
from hpcbinder.text import one_line

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,79}", re.ASCII)
_PATH = "/usr/local/bin:/usr/bin:/bin"
_MOST = 300
"""Images that are shown."""
_LIST, _RECORD = 4 << 20, 2 << 20
"""Bytes of an answer. As objects of Python it takes some thirty times as many, for a moment."""


class Person:
    """Asks about the images of a person's own store.

    Args:
        name: Of the person's account.
        prefix: What runs a command as that person: `("sudo", "-u", "ada")`, `("runuser", "-u", "ada", "--")`; nothing
            where the hub is that person.
        program: How `hpcbinder` is called there. Where what a login sets is needed to find the store, a login shell may
            stand in front: `("/bin/bash", "-lc", 'exec hpcbinder "$@"', "hpcbinder")`.
        path: PATH for it; the folder of the Python that runs here comes last.
        seconds: That an answer may take.
    """

    def __init__(
        self,
        name: str,
        prefix: Sequence[str] = (),
        *,
        program: Sequence[str] = ("hpcbinder",),
        path: str = _PATH,
        seconds: float = 10.0,
    ) -> None:
        self._name = name
        self._path = f"{path}:{Path(sys.executable).parent}"
        self._command = (*prefix, *program)
        self._seconds = seconds

    async def environments(self) -> dict[str, Environment]:
        """The images of the person's own store, by id.

        Raises:
            HpcbinderError: They cannot be had, in time.
        """
        # Also to make something of it keeps nobody else waiting.
        return await asyncio.to_thread(self._listed)

    async def entry(self, id_: str) -> Entry:
        """The record of one image of the person's own store.

        Raises:
            HpcbinderError: It cannot be had, in time.
        """
        if not _ID.fullmatch(id_):
            raise CatalogError("that cannot be an image's id")
        return await asyncio.to_thread(self._recorded, id_)

    def _listed(self) -> dict[str, Environment]:
        answer = self._ask(_LIST, "list", "--own", "--json")
        if not isinstance(answer, list):
            raise CatalogError("what hpcbinder says of your images cannot be read")
        found = {}
        for item in answer[:_MOST]:
            if (made := _environment(item)) is not None:
                found[made.id] = made
        return found

    def _recorded(self, id_: str) -> Entry:
        answer = self._ask(_RECORD, "show", id_, "--json")
        try:
            entry: Entry = build(answer, Entry)
        except (ValueError, RecursionError) as error:
            raise CatalogError(f"the record of your image is damaged: {one_line(str(error), 200)}") from None
        if entry.id != id_ or not all(path.startswith("/") for path in entry.formats.values()):
            raise CatalogError("the record is another image's")
        return entry

    def _ask(self, limit: int, *arguments: str) -> Any:
        command, environ = (*self._command, *arguments), self._environment()
        raw = _output(command, environ, self._seconds, limit)
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            raise CatalogError("what hpcbinder says of your images cannot be read") from None

    def _environment(self) -> dict[str, str]:
        """A login's, nothing of the hub's."""
        try:
            account = pwd.getpwnam(self._name)
        except (KeyError, ValueError):
            raise CatalogError(f"there is no account {one_line(self._name, 80)} here") from None
        return {
            "HOME": account.pw_dir,
            "LANG": "C.UTF-8",
            "LOGNAME": account.pw_name,
            "PATH": self._path,
            "SHELL": account.pw_shell,
            "USER": account.pw_name,
        }


def _output(command: Sequence[str], environ: Mapping[str, str], seconds: float, limit: int) -> bytes:
    """What a command prints; nothing that it leaves running in its group outlives it, and nothing is waited for that
    does.

    Raises:
        CatalogError: It cannot be run, takes too long, prints too much or fails.
    """
    end = time.monotonic() + seconds
    try:
        process = subprocess.Popen(
            list(command),
            env=dict(environ),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise CatalogError(f"hpcbinder cannot be run as you: {one_line(str(error), 200)}") from None
    try:
        raw = _read(process, end, limit)
        while raw is not None and os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if time.monotonic() > end:
                raw = None
            time.sleep(0.005)
    finally:
        # Before it is waited for, while the number is still its own.
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdout is not None:
            process.stdout.close()
        process.wait()
    if raw is None:
        raise CatalogError(f"your images could not be listed within {seconds:.0f} s")
    if process.returncode:
        raise CatalogError("your images could not be listed: see what `hpcbinder list` says to you")
    return raw


def _read(process: subprocess.Popen[bytes], end: float, limit: int) -> bytes | None:
    assert process.stdout is not None
    raw = bytearray()
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        while waiting.select(max(0.0, end - time.monotonic())):
            block = os.read(process.stdout.fileno(), 1 << 16)
            if not block:
                return bytes(raw)
            raw += block
            if len(raw) > limit:
                raise CatalogError(f"what hpcbinder says of your images is longer than {limit} bytes")
    return None


def _environment(item: object) -> Environment | None:
    """One image of a list that a person may have written; None for what is none."""
    if not isinstance(item, dict) or not isinstance(id_ := item.get("id"), str) or not _ID.fullmatch(id_):
        return None
    known: dict[str, Any] = {
        "title": id_.rpartition("-")[0] or id_,
        "repository": _line(item, "source", 1000),
        "ref": _line(item, "ref", 300),
    }
    said = item.get("published")
    if isinstance(said, dict):
        try:
            return environment(id_, checked(build({**known, **said}, Published)), own=True)
        except (HpcbinderError, ValueError, RecursionError):
            pass  # as if nothing had been said
    try:
        return environment(id_, checked(Published(**known)), own=True)
    except UsageError:
        return None


def _line(item: Mapping[str, object], name: str, limit: int) -> str:
    value = item.get(name)
    return one_line(value, limit) if isinstance(value, str) else ""

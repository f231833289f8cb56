"""OpenSSH's client: one fixed program on another machine, all that it is told by its input.

The machine is known by a host key that the site has written down, the person by a key or a certificate that the hub
holds for them. Neither the hub's own settings of ssh nor the other machine's answers change that.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcbinder.errors import RunError, UsageError
from hpcbinder.jupyterhub import sent
from hpcbinder.jupyterhub.account import Done, run
from hpcbinder.text import one_line

_CONNECT = 15
"""Seconds to reach a machine and be let in."""
_FAILED = 255
"""ssh(1): the exit code where it failed itself; any other is the other machine's word."""

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,252}[A-Za-z0-9])?", re.ASCII)
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_PROGRAM = re.compile(r"/[A-Za-z0-9/._+-]+", re.ASCII)
# Not what ssh_config(5) gives a meaning within double quotes.
_PATH = re.compile(r"/[^\"\\\x00-\x1f\x7f$%]*")

_REASONS = (
    # (what ssh says, what that means), the first that fits.
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "it is not the machine whose host key is known"),
    ("Host key verification failed", "its host key is not known"),
    ("host key is known for", "its host key is not known"),
    ("bad permissions", "the key's file is open to others"),
    ("UNPROTECTED PRIVATE KEY", "the key's file is open to others"),
    ("Permission denied", "it does not take the key"),
    ("Could not resolve", "there is no machine of that name"),
    ("Connection refused", "nothing answers there"),
    ("timed out", "it does not answer"),
    ("No route to host", "it does not answer"),
    ("unreachable", "it does not answer"),
)


class UnreachableError(RunError):
    """The machine cannot be logged in to."""


@dataclass(frozen=True)
class Login:
    """Who logs in where, and how both are known.

    Attributes:
        host: Name or address of the machine.
        user: The account there.
        key: The private key's file, open to the hub alone.
        known_hosts: Host keys of the machines, as sshd(8) writes them down.
        certificate: For the key, signed by an authority that the machine trusts; None for none.
        port: Of its sshd.

    Raises:
        UsageError: A value cannot be meant.
    """

    host: str
    user: str
    key: Path
    known_hosts: Path
    certificate: Path | None = None
    port: int = 22

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise UsageError(f"'{one_line(self.host, 80)}' is not the name of a machine")
        if not _USER.fullmatch(self.user):
            raise UsageError(f"'{one_line(self.user, 80)}' is not an account that ssh can be told")
        for path in (self.key, self.known_hosts, self.certificate):
            if path is not None and not _PATH.fullmatch(str(path)):
                raise UsageError(f"'{one_line(str(path), 80)}' is not a path that ssh can be told: it must be absolute")
        if not 0 < self.port < 65536:
            raise UsageError(f"there is no port {self.port}")


class OpenSSH:
    """Has the far end (`hpcbinder.jupyterhub.remote`) do something.

    Args:
        program: OpenSSH's client.
        python: Python 3.9 or later on the other machine.

    Raises:
        UsageError: One of them is not an absolute path of plain characters.
    """

    def __init__(self, program: str = "/usr/bin/ssh", python: str = "/usr/bin/python3") -> None:
        for path in (program, python):
            if not _PROGRAM.fullmatch(path):
                raise UsageError(f"'{one_line(path, 80)}' is not an absolute path of a program")
        self._program = program
        self._command = f"exec {python} -I -S -c {shlex.quote(sent.RECEIVE)}"

    def argv(self, login: Login) -> list[str]:
        """The command line: the same for whatever is asked."""
        options = {
            "BatchMode": "yes",
            "CheckHostIP": "no",
            "ClearAllForwardings": "yes",
            "ConnectTimeout": str(_CONNECT),
            "ForwardAgent": "no",
            "GlobalKnownHostsFile": "none",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "IdentityFile": _quoted(login.key),
            "LogLevel": "ERROR",
            "PermitLocalCommand": "no",
            "PreferredAuthentications": "publickey",
            "ServerAliveCountMax": "3",
            "ServerAliveInterval": "10",
            "StrictHostKeyChecking": "yes",
            "UpdateHostKeys": "no",
            "UserKnownHostsFile": _quoted(login.known_hosts),
            **({"CertificateFile": _quoted(login.certificate)} if login.certificate else {}),
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return [
            *(self._program, "-F", "none", "-T", "-x", "-e", "none", *words),
            *("-p", str(login.port), "-l", login.user, "--", login.host, self._command),
        ]

    async def ask(self, login: Login, request: Mapping[str, Any], *, seconds: float = 60.0) -> dict[str, Any]:
        """Have something done.

        Args:
            login: Where, and as whom.
            request: What (`remote`), without its mark.
            seconds: That it may take.

        Raises:
            UnreachableError: The machine does not answer, is another one, or does not let the person in.
            RunError: It cannot be done there.
        """
        mark, told = sent.message("remote", request)
        # Nothing of the hub's own environment is any of ssh's business.
        environ = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        try:
            done = await run(self.argv(login), told, environ=environ, seconds=seconds)
            found = sent.answer(mark, done.out)
        except RunError as error:
            raise RunError(f"{login.host}: {error.message}") from None
        if found is None:
            raise _failure(login, done)
        return found


def _quoted(path: Path) -> str:
    """One word where ssh_config(5) has a list of them."""
    return f'"{path}"'


def _failure(login: Login, done: Done) -> RunError:
    if done.code == _FAILED:
        reason = next((meaning for words, meaning in _REASONS if words in done.complaint), "")
        reason = reason or one_line(" ".join(done.complaint.split())[-300:], 300) or "ssh does not say why"
        return UnreachableError(f"{login.host} cannot be logged in to: {reason}")
    last = one_line(" ".join(done.complaint.split())[-300:], 300) or f"exit code {done.code}"
    return RunError(f"{login.host} lets {login.user} in, and runs nothing for the hub: {last}")

"""A person's account, as which a hub submits jobs, and looks after what is the person's.

The hub opens nothing of a home itself: it may be root, and a home is its owner's. What is to be done there is done by
programs that run as the person, for a while and for so many bytes. No shell reads a word of it, and of the hub's own
environment only what is named goes along.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import re
import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcbinder.errors import RunError, UsageError
from hpcbinder.jupyterhub import sent
from hpcbinder.text import one_line

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]{0,63}\$?", re.ASCII)
_ANSWER = 1 << 20
_COMPLAINT = 1 << 16
_REAPED = 5.0
"""Seconds that what is killed may take to go: one that waits for a file system goes later."""


class CutError(RunError):
    """A command says more than an answer is."""


@dataclass(frozen=True)
class Done:
    """What a command said: its exit code, all of its output, and the first so many bytes of its complaints."""

    code: int
    out: str
    complaint: str


@dataclass(frozen=True)
class Account:
    """Whose server it is.

    Attributes:
        name: Of the account.
        home: Its home folder.
        shell: Its login shell.
        prefix: What runs a command as this person, () where the hub is that person.
        environ: All of the environment that such a command gets.
        python: Runs the programs that are sent.
    """

    name: str
    home: str
    shell: str
    prefix: tuple[str, ...]
    environ: Mapping[str, str]
    python: str

    @classmethod
    def of(
        cls,
        name: str,
        *,
        prefix: str,
        environ: Mapping[str, str],
        python: str,
        minimum_uid: int = 1000,
        hubs: bool = False,
    ) -> Account:
        """An account of this machine.

        Args:
            name: As JupyterHub has it.
            prefix: Words for a command line; `{username}` stands for the name.
            environ: Besides HOME, USER, LOGNAME and SHELL.
            python: Python 3.9 or later.
            minimum_uid: Lowest number of an account that is a person's.
            hubs: The hub's own account is one.

        Raises:
            UsageError: There is no such account, or it is root's, a service's or the hub's own.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(f"{one_line(name, 80)!r} is no name of an account")
        try:
            known = pwd.getpwnam(name)
        except KeyError:
            raise UsageError(f"there is no account {name} on this machine") from None
        refuse_service(known, minimum_uid)
        me = os.geteuid() == known.pw_uid
        if me and not hubs:
            raise UsageError(f"no server is started as {known.pw_name}, the hub's own account (own_account)")
        words = tuple(word.replace("{username}", known.pw_name) for word in shlex.split(prefix))
        own = {"HOME": known.pw_dir, "USER": known.pw_name, "LOGNAME": known.pw_name, "SHELL": known.pw_shell}
        return cls(known.pw_name, known.pw_dir, known.pw_shell, () if me else words, {**environ, **own}, python)

    async def run(self, command: Sequence[str], told: bytes = b"", *, seconds: float = 60.0) -> Done:
        """Run a command as the person.

        Args:
            command: Program and arguments.
            told: Its input.
            seconds: That it may take.

        Raises:
            RunError: See `run`.
        """
        return await run((*self.prefix, *command), told, environ=self.environ, seconds=seconds)

    async def ask(self, program: str, request: Mapping[str, Any], *, seconds: float = 60.0) -> dict[str, Any]:
        """Have one of the programs that stand alone (`filing`, `remote`) do something as the person.

        Args:
            program: Name of its file in this folder.
            request: What, without its mark.
            seconds: That it may take.

        Raises:
            RunError: It cannot be done; the message is one line.
        """
        mark, told = sent.message(program, request)
        done = await self.run((self.python, "-I", "-S", "-c", sent.RECEIVE), told, seconds=seconds)
        if (answer := sent.answer(mark, done.out)) is not None:
            return answer
        why = one_line(" ".join(done.complaint.split())[-300:], 300) or f"exit code {done.code}"
        raise RunError(f"nothing can be run as {self.name} here: {why}")


def refuse_service(known: pwd.struct_passwd, minimum_uid: int) -> None:
    """Refuse an account that is no person's.

    Raises:
        UsageError: It is root's, or its number is below.
    """
    if known.pw_uid == 0:
        raise UsageError("no server is started as root")
    if known.pw_uid < minimum_uid:
        raise UsageError(f"no server is started as {known.pw_name}, an account of a service (minimum_uid)")


async def run(command: Sequence[str], told: bytes = b"", *, environ: Mapping[str, str], seconds: float = 60.0) -> Done:
    """Run a command, no shell between.

    Nothing that it leaves running is waited for longer than `seconds`, in whatever session that is.

    Args:
        command: Program and arguments.
        told: Its input.
        environ: All of its environment.
        seconds: That it may take.

    Raises:
        CutError: It says more than an answer is; of complaints the rest is thrown away.
        RunError: It cannot be started, or takes longer.
    """
    loop = asyncio.get_running_loop()
    try:
        transport, talk = await loop.subprocess_exec(
            lambda: _Talk(loop), *command, env=dict(environ), cwd="/", start_new_session=True
        )
    except (OSError, ValueError) as error:
        raise RunError(f"{command[0]} cannot be run: {one_line(str(error), 200)}") from None
    try:
        said = transport.get_pipe_transport(0)
        assert isinstance(said, asyncio.WriteTransport)
        said.write(told)
        said.close()
        await asyncio.wait_for(asyncio.shield(talk.over), seconds)
    except asyncio.TimeoutError:
        raise RunError(f"{command[0]} takes more than {seconds:.0f} s") from None
    finally:
        if transport.get_returncode() is None:
            # Not somebody else's to end: sudo is root's. It ends by what it is told and heard no more.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(transport.get_pid(), signal.SIGKILL)
            await asyncio.wait({talk.exited}, timeout=_REAPED)
        with contextlib.suppress(PermissionError):
            transport.close()
    if talk.cut:
        raise CutError(f"{command[0]} says more than {_ANSWER} bytes")
    code = transport.get_returncode() or 0
    return Done(code, talk.out.decode(errors="replace"), talk.complaint.decode(errors="replace"))


class _Talk(asyncio.SubprocessProtocol):
    """What is heard of a command. `asyncio.subprocess.Process.wait` waits for its pipes too, which whatever it left
    running may hold.

    Attributes:
        exited: The command itself has ended.
        over: And nobody says anything any more; or it has said too much.
        cut: It has.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.exited: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self.cut = False
        self.out = bytearray()
        self.complaint = bytearray()
        self._open = {1, 2}

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self.complaint += data[: _COMPLAINT - len(self.complaint)]
        elif len(self.out) + len(data) <= _ANSWER and not self.cut:
            self.out += data
        else:
            self.cut = True
            self._settle(self.over)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        self._end()

    def process_exited(self) -> None:
        self._settle(self.exited)
        self._end()

    def _end(self) -> None:
        if self.exited.done() and not self._open:
            self._settle(self.over)

    @staticmethod
    def _settle(future: asyncio.Future[None]) -> None:
        if not future.done():
            future.set_result(None)

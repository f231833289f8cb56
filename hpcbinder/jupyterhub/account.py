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


@dataclass(frozen=True)
class Done:
    """What a command said: its exit code, and the first so many bytes of its output."""

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
    def of(cls, name: str, *, prefix: str, environ: Mapping[str, str], python: str) -> Account:
        """An account of this machine.

        Args:
            name: As JupyterHub has it.
            prefix: Words for a command line; `{username}` stands for the name.
            environ: Besides HOME, USER, LOGNAME and SHELL.
            python: Python 3.9 or later.

        Raises:
            UsageError: There is no such account, or it is root's.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(f"{one_line(name, 80)!r} is no name of an account")
        try:
            known = pwd.getpwnam(name)
        except KeyError:
            raise UsageError(f"there is no account {name} on this machine") from None
        if known.pw_uid == 0:
            raise UsageError("no server is started as root")
        words = tuple(word.replace("{username}", known.pw_name) for word in shlex.split(prefix))
        own = {"HOME": known.pw_dir, "USER": known.pw_name, "LOGNAME": known.pw_name, "SHELL": known.pw_shell}
        me = os.geteuid() == known.pw_uid
        return cls(known.pw_name, known.pw_dir, known.pw_shell, () if me else words, {**environ, **own}, python)

    async def run(self, command: Sequence[str], told: bytes = b"", *, seconds: float = 60.0) -> Done:
        """Run a command as the person.

        Args:
            command: Program and arguments.
            told: Its input.
            seconds: That it may take.

        Raises:
            RunError: It cannot be started, or takes longer.
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


async def run(command: Sequence[str], told: bytes = b"", *, environ: Mapping[str, str], seconds: float = 60.0) -> Done:
    """Run a command, no shell between; what it says beyond some bytes is thrown away.

    Raises:
        RunError: It cannot be started, or takes longer.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(environ),
            cwd="/",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise RunError(f"{command[0]} cannot be run: {one_line(str(error), 200)}") from None
    try:
        out, complaint = await asyncio.wait_for(_converse(process, told), seconds)
    except asyncio.TimeoutError:
        raise RunError(f"{command[0]} takes more than {seconds:.0f} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return Done(process.returncode or 0, out.decode(errors="replace"), complaint.decode(errors="replace"))


async def _converse(process: asyncio.subprocess.Process, told: bytes) -> tuple[bytes, bytes]:
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None

    async def tell(stream: asyncio.StreamWriter) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            stream.write(told)
            await stream.drain()
        stream.close()

    async def heard(stream: asyncio.StreamReader, most: int) -> bytes:
        text = b""
        while data := await stream.read(1 << 16):
            text = (text + data)[:most]
        return text

    _, out, complaint = await asyncio.gather(
        tell(process.stdin), heard(process.stdout, _ANSWER), heard(process.stderr, _COMPLAINT)
    )
    await process.wait()
    return out, complaint

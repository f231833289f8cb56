"""Bytecode for an image's interpreter, made by it or by one of this machine that makes the same.

Unchecked hash-based files (PEP 552): every file of an image has one time, and nothing in it changes.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import TracebackType
from typing import Protocol

from hpcbinder.errors import BuildError
from hpcbinder.process import start, stop
from hpcbinder.squashfs import share_freed
from hpcbinder.text import one_line
from hpcbinder.wheels.archive import Refused
from hpcbinder.wheels.compiling import END, LATE, NONE, most
from hpcbinder.wheels.target import Target

BATCH_FILES, BATCH_BYTES = 100, 1 << 20
"""Of sources that are compiled one after the other by one process."""
LARGEST = 16 << 20
"""Bytes of a source that is compiled; a compiler takes a hundred times that much memory."""

_SECONDS = 120
"""Of processor time for the files that one process compiles: good sources take two."""
_PATIENCE = 900.0
"""Seconds for one file on a machine that has other things to do."""
AGAIN = "try again when this machine is less busy, or ask for another version: nothing of it was installed"
_HELLO = 20.0
_READY = 2
"""Processes that are started before there is anything to compile, while wheels are still on their way."""


@dataclass(frozen=True)
class Interpreter:
    """How a CPython is started on this machine.

    Attributes:
        argv: The program and its options, behind which `-c PROGRAM` can stand: `(/usr/bin/python3.11, -s, -S, -B)`.
        env: Variables it needs; it gets no others but `PYTHONHASHSEED` and a locale.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Compiled:
    """Bytecode of some files.

    Attributes:
        files: Of each what its `.pyc` holds, None if it does not compile, or to far more than it is.
        seconds: Processor time that it took.
    """

    files: list[bytes | None]
    seconds: float


class Compiler(Protocol):
    """Makes files of bytecode."""

    def submit(self, sources: Sequence[tuple[str, bytes]]) -> Future[Compiled]:
        """Have files compiled.

        Args:
            sources: (path in the image, content), some of `BATCH_FILES` and `BATCH_BYTES`.

        Returns:
            The bytecode, which depends on `sources` only. The future raises Refused if making it takes too long.
        """


def host_interpreter(target: Target) -> Interpreter | None:
    """An interpreter of this machine that makes the same bytecode as the image's; None if there is none."""
    name = f"python{target.version[0]}.{target.version[1]}"
    candidates = [f"/usr/bin/{name}", f"/usr/local/bin/{name}", shutil.which(name)]
    if sys.version_info[:2] == target.version:
        candidates.insert(0, sys.executable)
    for path in dict.fromkeys(candidates):
        if path and os.access(path, os.X_OK) and target.magic is not None and _magic(path) == target.magic:
            return _of_this_machine(path)
    return None


def _of_this_machine(path: str) -> Interpreter:
    return Interpreter((path, "-s", "-S", "-B"))


@lru_cache
def _magic(path: str) -> int | None:
    if path == sys.executable and sys.implementation.name == "cpython":
        return int.from_bytes(MAGIC_NUMBER[:2], "little")
    try:
        with _Child(_of_this_machine(path)) as child:
            return child.magic
    except BuildError:
        return None


class Compilers:
    """Several processes of one interpreter; a `Compiler` and a context manager.

    Args:
        interpreter: How it is started.
        target: What the bytecode is for.
        jobs: Processes.
    """

    def __init__(self, interpreter: Interpreter, target: Target, jobs: int) -> None:
        self._interpreter = interpreter
        self._target = target
        self._jobs = jobs
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="bytecode")
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._children: set[_Child] = set()
        self._stopped = False

    def submit(self, sources: Sequence[tuple[str, bytes]]) -> Future[Compiled]:
        """See `Compiler.submit`.

        The future raises BuildError if the interpreter cannot be started or makes other bytecode.
        """
        return self._pool.submit(self._compile, sources)

    def _compile(self, sources: Sequence[tuple[str, bytes]]) -> Compiled:
        made: list[bytes | None] = []
        seconds = 0.0
        while len(made) < len(sources):
            child = self._child()
            try:
                answers = child.compile(sources[len(made) :])
            except BuildError:
                self._end(child)
                if self._stopped:
                    raise CancelledError from None
                raise
            made += answers.files
            seconds += answers.seconds
            if len(made) < len(sources):
                # The next one brought a compiler down, perhaps before all of it was read.
                self._end(child)
                made.append(None)
        return Compiled(made, seconds)

    def _child(self) -> _Child:
        child: _Child | None = getattr(self._mine, "child", None)
        if child is None:
            child = _Child(self._interpreter)
            with self._lock:
                self._children.add(child)
                if self._stopped:
                    raise CancelledError
            if self._target.magic not in (None, child.magic):
                raise BuildError(
                    f"{self._interpreter.argv[0]} makes bytecode {child.magic}, Python {self._target.python} wants "
                    f"{self._target.magic}"
                )
            self._mine.child = child
        return child

    def _end(self, child: _Child) -> None:
        self._mine.child = None
        with self._lock:
            self._children.discard(child)
        child.close()

    def __enter__(self) -> Compilers:
        share_freed()  # before these threads, and those that fetch and squash, have an arena each
        for _ in range(min(self._jobs, _READY)):
            self._pool.submit(self._child)  # what is wrong with it is said when something is to be compiled
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            with self._lock:
                self._stopped = True
                for child in self._children:
                    child.interrupt()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for child in self._children:
            child.close()


class _Child:
    """A process that runs `compiling`; used by one thread, which must outlive it."""

    def __init__(self, interpreter: Interpreter) -> None:
        program = Path(__file__).with_name("compiling.py").read_text(encoding="utf-8")
        env = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", **interpreter.env}
        argv = [*interpreter.argv, "-W", "ignore", "-c", program, str(_SECONDS)]
        try:
            self._process = start(
                argv,
                env=env,
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=Path("/"),
                ending=signal.SIGKILL,
            )
        except OSError as error:
            raise BuildError(f"{argv[0]} cannot be started: {error.strerror}") from None
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        try:
            self.magic = self._number(time.monotonic() + _HELLO)
        except (_Gone, _Late):
            self.close()
            raise BuildError(f"{one_line(argv[0], 200)} does not run here as a Python interpreter") from None

    def compile(self, sources: Sequence[tuple[str, bytes]]) -> Compiled:
        """Compile files; fewer answers than files if one of them, the next, brings a compiler down.

        Raises:
            Refused: One takes too long. Without its bytecode a layer would depend on how fast the machine is.
            BuildError: The process has ended, as if it was killed.
        """
        try:
            return self._compiled(sources)
        except (_Gone, OSError):
            raise BuildError(
                "the Python that makes bytecode was killed",
                hint="is there enough memory? with fewer jobs it takes less",
            ) from None

    def _compiled(self, sources: Sequence[tuple[str, bytes]]) -> Compiled:
        made: list[bytes | None] = []
        path = ""
        try:
            self._write(b"B")
            for path, source in sources:
                name = os.fsencode(path)
                head = len(name).to_bytes(4, "big") + len(source).to_bytes(4, "big")
                self._write(head + name + source)
                deadline = time.monotonic() + _PATIENCE
                length = self._number(deadline)
                if length in (END, LATE):
                    seconds = self._number(deadline) / 1000
                    if length == LATE:
                        raise Refused(f"{path!r} takes more than {_SECONDS} seconds to compile", hint=AGAIN)
                    return Compiled(made, seconds)
                if length != NONE and length > most(len(source)):
                    raise _Gone
                made.append(None if length == NONE else self._read(length, deadline))
            self._write(bytes(8))
            deadline = time.monotonic() + _PATIENCE
            if self._number(deadline) not in (END, LATE):
                raise _Gone
            return Compiled(made, self._number(deadline) / 1000)
        except _Late:
            raise Refused(f"{path!r} is not compiled after {_PATIENCE:.0f} seconds", hint=AGAIN) from None

    def interrupt(self) -> None:
        """End the process and what it started; who waits for it gets no more answers."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        """End it."""
        stop(self._process, signal.SIGKILL)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._in, view) :]

    def _number(self, deadline: float) -> int:
        return int.from_bytes(self._read(4, deadline), "big")

    def _read(self, length: int, deadline: float) -> bytes:
        parts = []
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        while length:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise _Late
            part = os.read(self._out, min(length, 1 << 20))
            if not part:
                raise _Gone
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Gone(Exception):
    """The process has ended, or says what it never would."""


class _Late(Exception):
    """The process says nothing."""


InterpreterSource = Callable[[], Interpreter]
"""Gives an interpreter when one is needed."""

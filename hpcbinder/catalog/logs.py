"""What was said while an image was built, kept as it is said: `logs/ID/RUN/NUMBER.log`.

A run is one build, its folder named by when it began. Its log is a row of pieces of at most `_PIECE` bytes; of a long
one those in the middle go, so that how it began and how it ended stay. Nothing is rewritten: a reader can follow, and a
`kill -9` loses nothing. The writer keeps the first piece locked: a log that nobody writes has ended, however that came.

Logs are their owner's alone (0600): a repository's own code prints into them what it likes.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hpcbinder.catalog.files import remove_tree
from hpcbinder.config import redact
from hpcbinder.errors import HpcbinderError
from hpcbinder.progress import Reporter
from hpcbinder.text import one_line, printable

_PIECE = 1 << 20
_FIRST, _LAST = 2, 6
"""How many pieces of a log's beginning and end stay."""
_RUNS = 2
"""How many builds of an image have a log: the newest, and the one before."""
_RUN = re.compile(r"[0-9]{10}-[0-9]{9}")
_NUMBER = re.compile(r"([0-9]{6})\.log")


class LogBook:
    """A reporter that passes everything on and keeps it; in memory first, on disk once it is known what is built.

    Args:
        reporter: Who hears of it as well.
        about: First line of the log: what was asked for.
    """

    def __init__(self, reporter: Reporter, about: str) -> None:
        self._reporter = reporter
        self._start = time.time()
        self._waiting: list[str] | None = [
            f"{time.strftime('%Y-%m-%d %H:%M:%S %z', time.localtime(self._start))}  {one_line(redact(about))}\n"
        ]
        self._pieces: _Pieces | None = None
        self._lock = threading.Lock()
        self.holds_output = False
        """Whether there is more in the log than what everybody saw: lines of a tool."""

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        """See `Reporter.phase`. What only says how far it is, is not kept."""
        self._reporter.phase(phase, message, progress)
        self._keep(phase, f"  {message}")

    def log(self, phase: str, line: str) -> None:
        """See `Reporter.log`."""
        self._reporter.log(phase, line)
        self.holds_output = True
        self._keep(phase, f"  | {line}")

    @contextmanager
    def kept(self, folder: Path) -> Iterator[None]:
        """Keep what was said so far and what is said in the body, and how the body ends, in `folder`.

        A log that cannot be written is no reason to fail: it ends there, and that is said.

        Args:
            folder: The image's, `logs/ID`; the caller sees to it that nobody else writes there.
        """
        self._open(folder)
        try:
            yield
        except HpcbinderError as error:
            self._end(f"failed: {error}")
            raise
        except Exception as error:
            for line in traceback.format_exc().splitlines():
                self._keep("failed", f"  | {line}")
            self._end(f"failed: internal error: {type(error).__name__}")
            raise
        except BaseException:
            self._end("interrupted")
            raise
        else:
            self._end("done")

    def _open(self, folder: Path) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting or [], None
            try:
                self._pieces = _Pieces.begin(folder, self._start)
                self._pieces.write("".join(waiting).encode())
            except OSError as error:
                self._give_up(error)

    def _keep(self, phase: str, text: str) -> None:
        line = f"[{time.time() - self._start:8.1f}s] {phase:>8}{one_line(redact(text))}\n"
        with self._lock:
            if self._waiting is not None:
                self._waiting = [*self._waiting[:200], *self._waiting[200:][-1000:], line]
            elif self._pieces is not None:
                try:
                    self._pieces.write(line.encode())
                except OSError as error:
                    self._give_up(error)

    def _end(self, how: str) -> None:
        self._keep("end", f"  {how}")
        with self._lock:
            if self._pieces is not None:
                self._pieces.close()
                self._pieces = None

    def _give_up(self, error: OSError) -> None:
        if self._pieces is not None:
            self._pieces.close()
            self._pieces = None
        self._reporter.phase("build", f"this build's log cannot be kept: {error.strerror}")


class _Pieces:
    """The files of one run, open for writing at the end."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._number = 0
        self._size = 0
        self._first = self._file = self._create()
        fcntl.flock(self._first, fcntl.LOCK_EX)

    @classmethod
    def begin(cls, folder: Path, start: float) -> _Pieces:
        """Begin a run, and forget the oldest ones."""
        folder.mkdir(mode=0o700, exist_ok=True)
        for old in _runs(folder)[: -(_RUNS - 1)]:
            remove_tree(old)
        run = folder / f"{int(start):010}-{int(start % 1 * 1e9):09}"
        run.mkdir(mode=0o700)
        return cls(run)

    def write(self, text: bytes) -> None:
        """Append whole lines."""
        if self._size and self._size + len(text) > _PIECE:
            self._next()
        self._size += len(text)
        while text:
            text = text[os.write(self._file, text) :]

    def close(self) -> None:
        for file in {self._first, self._file}:
            os.close(file)

    def _next(self) -> None:
        if self._file != self._first:
            os.close(self._file)
        self._number += 1
        self._size = 0
        # Also should the new one fail to come: a closed number must not be written to.
        self._file = self._first
        self._file = self._create()
        if (gone := self._number - _LAST) >= _FIRST:
            (self._run / f"{gone:06}.log").unlink(missing_ok=True)

    def _create(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        return os.open(self._run / f"{self._number:06}.log", flags, 0o600)


def _runs(folder: Path) -> list[Path]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 (names, not paths)
    except OSError:
        return []
    return [folder / name for name in sorted(names) if _RUN.fullmatch(name)]


def runs(folder: Path) -> Sequence[Path]:
    """The runs that have a log below `logs/ID`, the oldest first."""
    return _runs(folder)


def read(run: Path, *, follow: bool = False, interval: float = 0.2) -> Iterator[str]:
    """The lines of a run's log, without line ends, safe to print.

    Args:
        run: One of `runs`.
        follow: Wait for more until the build has ended.
        interval: Seconds between two looks.

    Raises:
        OSError: It cannot be read.
    """
    number = 0
    while True:
        present = _numbers(run)
        later = [n for n in present if n >= number]
        if not later:
            return
        if later[0] > number:
            yield f"… {later[0] - number} MiB of this log were not kept …"
            number = later[0]
        yield from _lines(run, number, follow, interval)
        number += 1


def _numbers(run: Path) -> list[int]:
    try:
        names = os.listdir(run)  # noqa: PTH208 (names, not paths)
    except FileNotFoundError:  # the image was removed meanwhile, and its log with it
        return []
    return sorted(int(match[1]) for name in names if (match := _NUMBER.fullmatch(name)))


def _lines(run: Path, number: int, follow: bool, interval: float) -> Iterator[str]:
    """The lines of one piece; returns when it is read and, with `follow`, will not grow any more."""
    try:
        file = (run / f"{number:06}.log").open("rb")
    except FileNotFoundError:  # it went since the look
        return
    with file:
        rest = b""
        while True:
            # Asked before reading: what is written between the two is read in the next round.
            over = not follow or any(n > number for n in _numbers(run)) or not _written(run)
            while block := file.read(1 << 16):
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    yield printable(line.decode("utf-8", "replace"))
            if over:
                if rest:
                    yield printable(rest.decode("utf-8", "replace"))
                return
            time.sleep(interval)


def _written(run: Path) -> bool:
    """Whether somebody still writes this log."""
    try:
        with (run / f"{0:06}.log").open("rb") as first:
            fcntl.flock(first, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False

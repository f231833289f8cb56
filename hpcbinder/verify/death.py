"""Why a kernel died: from how its process ended, and its last words."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from hpcbinder.text import one_line
from hpcbinder.verify.causes import distribution, likely_cause

_ANSI = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]")
_NOISE = re.compile(
    r"^\s*$|^\[(IPKernelApp|\w+App)\] (WARNING|INFO|DEBUG)|^(NOTE: When using the `ipython kernel`|Ctrl-C will not work"
    r"|To exit, you will have to|To read more about this|To connect another client|--existing|\{$|\}$)"
    r"|frozen modules|PYDEVD_DISABLE_FILE_VALIDATION|Debugger warning|make the debugger miss breakpoints"
)
"""What kernels say that nothing is wrong with."""
_ERROR = re.compile(r"^(?P<name>[A-Za-z_][\w.]*(?:Error|Exception|Warning|Exit|Interrupt|NotFound)): ?(?P<message>.*)$")
_LAST_SIGNAL = 64
_LINES = 6
"""Of the last words."""
_SIGNALS: Mapping[int, str] = {
    signal.SIGKILL: "it was killed, mostly for memory that the machine or the job did not have; or it killed itself",
    signal.SIGILL: "a package was compiled for another processor than this machine's",
    signal.SIGSEGV: "a crash in compiled code",
    signal.SIGBUS: "a crash in compiled code, or a file that became shorter, or a file system that is full",
    signal.SIGABRT: "compiled code gave up: damaged memory, or an error that nothing in it deals with",
    signal.SIGFPE: "a crash in compiled code",
    signal.SIGXCPU: "it took more processor time than it may (ulimit -t)",
}
_LOADER = re.compile(
    r"error while loading shared libraries: (lib[\w+.-]+)|symbol lookup error|version `([\w.]+)' not found"
)
_MEMORY = re.compile(r"std::bad_alloc|out of memory|[Cc]annot allocate memory|MemoryError|oom-kill")


@dataclass(frozen=True)
class Death:
    """A kernel's end.

    Attributes:
        text: What happened, for one line.
        error: The last error among its last words (`Name: message`), "" for none.
        cause: What is probably behind it, "" if nothing tells.
        notes: The last words, a line each.
    """

    text: str
    error: str
    cause: str
    notes: tuple[str, ...]


def read_death(status: int | None, words: str) -> Death:
    """Say what became of a kernel.

    Args:
        status: How its process ended, as `subprocess` has it; None if that is unknown.
        words: The end of its standard error: anything.
    """
    lines = [line for line in _ANSI.sub("", words).splitlines() if not _NOISE.search(line)]
    number = _signal(status)
    text = "the kernel died"
    if number is not None:
        text += f" ({_name(number)})"
    elif status is not None:
        text = f"the kernel ended (exit status {status})"
    match = next(filter(None, map(_ERROR.match, reversed(lines))), None)
    error = one_line(f"{match['name']}: {match['message']}", 300) if match else ""
    cause = _cause(match, " ".join(lines[-_LINES:])) or _SIGNALS.get(number or 0, "")
    shown = [one_line(line.strip(), 200) for line in lines[-_LINES:]]
    notes = (f"the kernel's last words: {shown[0]}",) if len(shown) == 1 else ("the kernel's last words:", *shown)
    return Death(text, error, cause, notes if shown else ())


def _cause(match: re.Match[str] | None, words: str) -> str:
    if match is not None:
        name = match["name"].rpartition(".")[2]
        if cause := likely_cause(name, match["message"]):
            return cause
        gone = re.search(r"No module named '?([\w.]+)'?", match["message"])
        if gone and name in ("ImportError", "ModuleNotFoundError"):
            return f"{gone[1]} is not in the image: add {distribution(gone[1])} to the requirements"
    if _MEMORY.search(words):
        return "there was not enough memory"
    if loader := _LOADER.search(words):
        if loader[1]:
            return f"the library {loader[1]} is not in the image: add the Debian package that has it to apt.txt"
        return "a shared library is of another version than the one it was compiled with"
    return ""


def _signal(status: int | None) -> int | None:
    """The signal that ended it, also where a shell around it says so (128 + N)."""
    if status is not None and status < 0:
        return -status
    return status - 128 if status is not None and 128 < status <= 128 + _LAST_SIGNAL else None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

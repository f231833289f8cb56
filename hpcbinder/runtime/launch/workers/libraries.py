"""What the host's dynamic loader loads for a program of the host's: elf(5), ld.so(8), as ldd(1) finds it out."""

# Paths are text here: they become words of a command line, and may be no text at all.
# ruff: noqa: PTH123

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Iterable, Mapping, Sequence

from ..values import LaunchError

_SECONDS = 30
_INTERPRETER = 3
"""PT_INTERP."""
_HEADER, _ENTRY = 64, 56
"""Bytes of an ELF64 header, and of an entry of its table of segments."""
_FOUND = re.compile(r"^\t(?:\S+ => )?(/.+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_MISSING = re.compile(r"^\t(\S+) => not found$", re.MULTILINE)

# Each is started with LD_TRACE_LOADED_OBJECTS: its loader says what it would load, and nothing of it is run.
_LIST = 'for each; do LD_TRACE_LOADED_OBJECTS=1 LD_PRELOAD="$ALONG" "$each"; done 2>/dev/null'


def loader(program: str) -> str:
    """The real path of the dynamic loader that a program names.

    Args:
        program: Absolute path.

    Raises:
        LaunchError: It names none.
    """
    try:
        with open(program, "rb") as file:
            header = file.read(_HEADER)
            if header[:2] == b"#!":
                raise LaunchError(f"{program} is a script, and what it starts is not there inside")
            if len(header) < _HEADER or header[:5] != b"\x7fELF\x02":
                raise LaunchError(f"{program} is not a program of this machine's")
            order = "<" if header[5] == 1 else ">"
            (start,) = struct.unpack_from(f"{order}Q", header, 32)
            size, count = struct.unpack_from(f"{order}HH", header, 54)
            file.seek(start)
            table = file.read(size * count)
            for number in range(count if size >= _ENTRY else 0):
                kind, _, offset, _, _, length = struct.unpack_from(f"{order}IIQQQQ", table, number * size)
                if kind == _INTERPRETER and length <= os.pathconf("/", "PC_PATH_MAX"):
                    file.seek(offset)
                    return os.path.realpath(os.fsdecode(file.read(length).rstrip(b"\0")))
    except (OSError, OverflowError, ValueError, struct.error) as error:
        raise LaunchError(f"{program} cannot be read: {error}") from error
    raise LaunchError(f"{program} is linked statically, and can load no plugins inside")


def libraries(programs: Sequence[str], environ: Mapping[str, str], along: Iterable[str] = ()) -> list[str]:
    """Real paths of all libraries that programs load here, the loader among them.

    Args:
        programs: Absolute paths; each has a `loader`.
        environ: Of whom it is for: LD_LIBRARY_PATH counts.
        along: Libraries that they may load later. What these lack is not asked for.

    Raises:
        LaunchError: One is missing, or the loader does not answer.
    """
    # Words are separated by these there.
    preload = " ".join(path for path in along if not re.search(r"[\s:]", path))
    known = {name: value for name, value in environ.items() if not name.startswith("LD_") or name == "LD_LIBRARY_PATH"}
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", _LIST, "sh", *programs],
            env={**known, "ALONG": preload},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"what {programs[0]} needs cannot be found out: {error}") from error
    if not preload and (missing := _MISSING.search(done.stdout)):
        raise LaunchError(f"{programs[0]} does not run here: {missing[1]} is missing")
    return list(dict.fromkeys(map(os.path.realpath, _FOUND.findall(done.stdout))))

"""What an interpreter in a folder is, and what it needs of the system it runs on."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcbinder.interpreters.elf import Binary, NotReadable, is_elf, read_binary
from hpcbinder.text import one_line

_SECONDS = 30
"""An interpreter on a slow shared file system takes some to start for the first time."""

_ASK = """\
import json, platform, sys, sysconfig
print(json.dumps({
    "implementation": platform.python_implementation().lower(),
    "version": sys.version_info[:3],
    "level": sys.version_info[3],
    "stdlib": sysconfig.get_path("stdlib"),
    "built_for": sysconfig.get_config_var("prefix") or "",
    "threads": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
}))
"""


class NotUsable(Exception):
    """An interpreter that no image can have, and why."""


@dataclass(frozen=True)
class Interpreter:
    """A CPython in a folder.

    Attributes:
        prefix: Its root: `bin/python3.12`, `lib/python3.12/`.
        version: `3.12`.
        full: `3.12.1`.
        architecture: OCI name.
        built_for: Folder it was made to lie in, which its build settings name.
        glibc: Version of the GNU C library it needs at least.
        system: Name of a library of the system -> paths below the prefix of what needs it.
        libraries: Paths below the prefix of its own shared libraries.
    """

    prefix: Path
    version: str
    full: str
    architecture: str
    built_for: str
    glibc: tuple[int, int]
    system: Mapping[str, tuple[str, ...]]
    libraries: tuple[str, ...]

    @property
    def program(self) -> Path:
        """Its file."""
        return self.prefix / "bin" / f"python{self.version}"

    @property
    def stdlib(self) -> Path:
        """The folder of its standard library."""
        return self.prefix / "lib" / f"python{self.version}"


def look(prefix: Path, version: str) -> Interpreter:
    """Look at `prefix/bin/pythonVERSION`: it is run once, with nothing of the environment and no package of its own.

    Args:
        prefix: Absolute, without symlinks.

    Raises:
        NotUsable: With the reason.
    """
    program = prefix / "bin" / f"python{version}"
    binary = _read(program)
    if binary is None:
        raise NotUsable("it is a script and no program")
    if not binary.architecture:
        raise NotUsable("it is for a processor that no base is made for")
    if "musl" in binary.loader or any("musl" in name for name in binary.needed):
        raise NotUsable("it is made for the C library musl, Debian has GNU's")
    answer = _ask(program)
    if answer["implementation"] != "cpython" or answer["threads"]:
        raise NotUsable("it is not the usual CPython")
    full = ".".join(map(str, answer["version"]))
    if answer["level"] != "final" or not full.startswith(f"{version}."):
        raise NotUsable(f"it is Python {full} {answer['level']}")
    stdlib = prefix / "lib" / f"python{version}"
    if Path(os.path.realpath(answer["stdlib"])) != stdlib:
        raise NotUsable(f"its standard library is elsewhere, in {answer['stdlib']}")
    system, libraries, glibc = _needs(prefix, version)
    return Interpreter(
        prefix, version, full, binary.architecture, str(answer["built_for"]), glibc, system, tuple(sorted(libraries))
    )


def stamp(prefix: Path, version: str) -> str:
    """Changes when the interpreter does: a new program, or other files beside its extension modules."""
    parts = []
    for name in (f"bin/python{version}", "lib", f"lib/python{version}", f"lib/python{version}/lib-dynload"):
        try:
            found = (prefix / name).stat()
            parts.append([name, found.st_mtime_ns, found.st_size, found.st_ino])
        except OSError:
            parts.append([name])
    return hashlib.sha256(json.dumps([1, os.fspath(prefix), parts]).encode()).hexdigest()


def _ask(program: Path) -> dict[str, Any]:
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    # Python 2 has no -I, which is these two and no folder of the script's.
    alone = ["-E", "-s"] if program.name.startswith("python2") else ["-I"]
    argv = [os.fspath(program), *alone, "-S", "-B", "-c", _ASK]
    try:
        done = subprocess.run(
            argv, env=environment, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise NotUsable(f"it says nothing for {_SECONDS} s") from None
    except OSError as error:
        raise NotUsable(f"it cannot be started: {error.strerror}") from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
        if not all(isinstance(number, int) for number in answer["version"]):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise NotUsable(f"it does not run here: {one_line(last or f'exit status {done.returncode}', 200)}") from None
    return answer


def _needs(prefix: Path, version: str) -> tuple[dict[str, tuple[str, ...]], set[str], tuple[int, int]]:
    """The system's libraries with who needs them, its own libraries, and the version of the C library."""
    pending = [f"bin/python{version}", *sorted(_modules(prefix, version))]
    system: dict[str, list[str]] = {}
    own: set[str] = set()
    glibc = (0, 0)
    for path in pending:  # grows while it is read
        binary = _read(prefix / path)
        if binary is None:
            continue
        glibc = max(glibc, binary.glibc)
        for name in binary.needed:
            library = f"lib/{name}"
            if (prefix / library).is_file():
                if library not in own:
                    own.add(library)
                    pending.append(library)
            else:
                system.setdefault(name, []).append(path)
    return {name: tuple(users) for name, users in sorted(system.items())}, own, glibc


def _modules(prefix: Path, version: str) -> Iterator[str]:
    folder = f"lib/python{version}/lib-dynload"
    try:
        with os.scandir(prefix / folder) as entries:
            for entry in entries:
                if re.fullmatch(r"[A-Za-z0-9_.-]+\.so", entry.name) and entry.is_file():
                    yield f"{folder}/{entry.name}"
    except OSError:
        return


def _read(path: Path) -> Binary | None:
    """None for a file that is no ELF file."""
    try:
        with path.open("rb") as file:
            return read_binary(file) if is_elf(file.read(4)) else None
    except OSError as error:
        raise NotUsable(f"{path.name} cannot be read: {error.strerror}") from None
    except NotReadable as error:
        raise NotUsable(f"{path.name} is damaged: {one_line(str(error), 200)}") from None

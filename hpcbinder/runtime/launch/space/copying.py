"""Getting an image's content out of it: the image's own `cp` does that, as the runtime shows it the folder."""

# Paths are text here: they become words of a command line, and may be no text at all.
# ruff: noqa: PTH101, PTH104, PTH108, PTH118, PTH120

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..pinned import ELSEWHERE
from ..starting import prepare
from ..supervise import supervise
from ..values import Command, LaunchError
from .place import Place

_COPY = """
[ -d "$1" ] || exit 98
mkdir content
cp -RP -- "$1/." content/
if [ -f "$2" ]; then cp -- "$2" history; fi
"""
_NO_REPOSITORY = 98
_KEPT = 8 << 10
"""Bytes of what a command said that are kept: its last ones."""


@dataclass(frozen=True)
class LeftOut:
    """What a copy is without.

    Attributes:
        special: Pipes, sockets and devices: paths below `content`.
        git: What git would take for a repository of its own, at whatever depth: paths below `content`.
    """

    special: tuple[str, ...]
    git: tuple[str, ...]


def copy_out(
    description: Mapping[str, Any], folder: Place, *, repository: str, history: str, environ: Mapping[str, str]
) -> LeftOut:
    """Copy an image's repository to `FOLDER/content` and, if there is one, its history to `FOLDER/history`.

    The files are the person's own afterwards, and can be written to; times are those of the copy. No `.git` is among
    them: git, on the host as well as inside, runs what the settings in it say.

    Args:
        description: How the image is run here (`starting.prepare`); its entrypoint and its `start` are not run.
        folder: An empty folder of the person, held; what is left out may stay in it, beside `content`.
        repository: Absolute path of a folder in the image.
        history: Absolute path of a file in the image.
        environ: The person's environment.

    Raises:
        LaunchError: The image cannot be run here, does not see the folder, or the copy fails.
    """
    plain = {name: value for name, value in description.items() if name not in ("files", "needs", "slurm")}
    plain.update({"image": {**description["image"], "entrypoint": ""}, "gpu": "none", "env": {}})
    # What a runtime cannot show is another folder inside, and one that was moved may be anybody's.
    plain["folder"] = {"path": folder.path, "inode": folder.inode}
    argv = ("/bin/sh", "-eu", "-c", _COPY, "hpcbinder", repository, history)
    code, said = _ended(prepare(plain, environ=environ, cwd=folder.path, argv=argv))
    if code == ELSEWHERE:
        raise LaunchError(
            f"{os.path.dirname(folder.path)} is not seen inside the image: add it to runtime.binds, "
            "unless somebody moved it away just now"
        )
    if code == _NO_REPOSITORY:
        raise LaunchError(f"the image has no folder {repository}")
    if code:
        last = said.strip().splitlines()[-1:] or [f"exit code {code}"]
        raise LaunchError(f"cannot copy the repository out of the image: {_shown(last[0])}")
    content = os.path.join(folder.at, "content")
    # The image's own cp made it, and what it says is a stranger's word: behind a link would be the person's own files.
    if not os.path.lexists(content) or not stat.S_ISDIR(os.lstat(content).st_mode):
        raise LaunchError("cannot copy the repository out of the image: it made no folder of it")
    return _made_writable(content)


def _shown(line: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in line)[:300]


def _ended(command: Command) -> tuple[int, str]:
    """Run a command to its end, which it also comes to with this process; its exit code, and the last it said."""
    read_end, write_end = os.pipe()
    me = os.getpid()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.close(read_end)
            null = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((null, 0), (write_end, 1), (write_end, 2)):
                os.dup2(source, target)
            os.close(write_end)
            code = supervise(command, parent=me)
        finally:
            os._exit(code)
    os.close(write_end)
    said = b""
    try:
        with os.fdopen(read_end, "rb", buffering=0) as pipe:
            while chunk := pipe.read(_KEPT):
                said = (said + chunk)[-_KEPT:]
    except BaseException:
        os.kill(child, signal.SIGTERM)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return (code if code >= 0 else 128 - code), said.decode("utf-8", "replace")


def _made_writable(top: str) -> LeftOut:
    """Let the owner read and write everything below a folder, and take out of it what does not belong in a copy."""
    special, repositories = [], []
    os.chmod(top, _mode(os.lstat(top)) | 0o700)
    for folder, names, files in os.walk(top):
        for name in (*names, *files):
            path = os.path.join(folder, name)
            found = os.lstat(path)
            if stat.S_ISDIR(found.st_mode):
                os.chmod(path, _mode(found) | 0o700)
            elif stat.S_ISREG(found.st_mode):
                os.chmod(path, _mode(found) | 0o600)
            elif not stat.S_ISLNK(found.st_mode):
                os.unlink(path)
                special.append(os.path.relpath(path, top))
                continue
            # Some file systems know no upper case, and git asks the file system.
            if name.lower() == ".git":
                repositories.append(path)
    for number, path in enumerate(reversed(repositories)):  # what is in another one comes first
        os.rename(path, os.path.join(os.path.dirname(top), f"git-{number}"))
    return LeftOut(tuple(special), tuple(os.path.relpath(path, top) for path in repositories))


def _mode(found: os.stat_result) -> int:
    """Permissions without set-user-id and the like, and without those to change what is the person's."""
    return stat.S_IMODE(found.st_mode) & 0o755

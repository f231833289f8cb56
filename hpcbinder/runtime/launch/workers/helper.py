"""Somebody outside a container who asks the batch system for what is wanted inside, where none of its programs are.

It listens on a socket in a folder that only this person can open, answers only this person, and ends with the command
it was started for: with its launcher, however that ends. Then no worker's job is left.

    inside: a notebook ── socket ── helper ── sbatch, squeue, scancel
                                      └── as long as the launcher holds the other end of a pipe

A request is a JSON object on a line, an answer another one; then the connection ends. `do` says what is wanted:

- `hello`: `{"address": this machine's, as others on the cluster reach it}`
- `start`: `kind` and `values` (`kinds`), `asked` (`asked`): a job of workers of this same image; `{"job": number}`
- `jobs`: `{"jobs": [{"job", "state", "nodes", "reason", "said"}]}`, those that `start` submitted
- `cancel`: `jobs`: numbers of some of them
- `command`: `argv`, one of `COMMANDS` with its arguments, and `cwd`; standard input, output and error come along as
  descriptors (unix(7), SCM_RIGHTS); `{"code": exit code}`. Only where the site lets commands in.

What is refused is answered with `{"refused": why}`.
"""

# Paths are text here: they become words of a command line.
# ruff: noqa: PTH102, PTH103, PTH112, PTH117, PTH118, PTH120, PTH123

from __future__ import annotations

import json
import os
import secrets
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any

from ..environment import allowed, for_nodes
from ..network import address
from ..pipes import pipes
from ..private import OpenToOthersError
from ..state import state_folder, stays
from ..values import Client, Helper, LaunchError
from .jobs import WorkerJobs, controller, start_words
from .kinds import asked_for, worker

COMMANDS = (
    *("sacct", "sacctmgr", "sbatch", "scancel", "scontrol", "sdiag", "sinfo"),
    *("sprio", "squeue", "sreport", "sshare", "sstat"),
)
"""What looks at jobs and submits them. Not srun and salloc: these can run programs on this machine, outside of it."""

_LONGEST = 256 << 10
_SECONDS = 10
"""Within which a request is told."""
_END = 30.0
"""Seconds that ending its jobs may take."""
_AT_ONCE = 32
_SOCKET = 100
"""Bytes of a socket's path that every system takes (unix(7): 108)."""

# $0: the socket, $1: what Python dask-jobqueue puts into its job scripts, "" for none.
_ENTER = """
HPCBINDER_HELPER=$0
PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}${0%/*}/python"
export HPCBINDER_HELPER PYTHONPATH
if [ -d "${0%/*}/bin" ]; then
    PATH="${0%/*}/bin:$PATH"
    export PATH
fi
if [ -n "$1" ]; then
    DASK_JOBQUEUE__SLURM__PYTHON=${DASK_JOBQUEUE__SLURM__PYTHON:-$1}
    export DASK_JOBQUEUE__SLURM__PYTHON
fi
shift
exec "$@"
"""
_STAND_IN = '#!/bin/sh\nexec python3 -I -S "${0%/*}/../python/hpcbinder_workers.py" "${0##*/}" "$@"\n'


def offered(
    description: Mapping[str, Any], environ: Mapping[str, str], cwd: str, runtime: str = "apptainer"
) -> Helper | None:
    """The helper that a command gets on this machine, None if the site wants none or there is no Slurm.

    Args:
        description: As launch.json has it: `slurm` {inside, asked, accounts}, `image`, `environment`.
        environ: The environment of whom it is run for, after the prologue.
        cwd: The command's.
        runtime: What runs it, a key of `runtimes.PROGRAMS`.
    """
    wanted = description.get("slurm", {})
    inside = wanted.get("inside")
    if inside not in ("workers", "commands", "bound"):
        return None
    if shutil.which("sbatch", path=environ.get("PATH", os.defpath)) is None:
        return None
    temporary, token = environ.get("TMPDIR", ""), secrets.token_hex(8)
    if not os.path.isdir(temporary) or len(os.fsencode(temporary)) > _SOCKET - 40 or not stays(temporary):
        temporary = "/tmp"
    folder = os.path.join(temporary, f"hpcbinder-{token}")
    client, notes = _bound(folder, description, environ, runtime) if inside == "bound" else (None, ())
    try:
        shared = os.path.join(state_folder(environ, "workers"), token)
    except OpenToOthersError as error:
        shared, notes = "", (*notes, f"no workers can be started: {error}")
    return Helper(
        folder=folder,
        shared=shared,
        commands=inside == "commands",
        client=client,
        environ=for_nodes(environ),
        cwd=cwd,
        description=description,
        asked=wanted.get("asked", {}),
        notes=notes,
    )


def _bound(
    folder: str, description: Mapping[str, Any], environ: Mapping[str, str], runtime: str
) -> tuple[Client, tuple[str, ...]]:
    from . import bound  # few sites want it

    try:
        if runtime not in ("apptainer", "singularity"):
            raise LaunchError(f"{runtime} cannot show this machine's where Slurm looks for it")
        image_env = description["image"]["env"]
        entering = allowed(environ, description["environment"], image_env)
        return bound.client(folder, environ, image_env, entering, description["slurm"].get("accounts")), ()
    except (LaunchError, OSError) as error:
        return bound.no_client(str(error)), (f"no Slurm client inside: {error}",)


FILE = "hpcbinder_helper"
"""The name under which a command finds the socket among its files."""


def shown(helper: Helper, argv: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The command that finds the helper inside, and the file it needs for that."""
    found = helper.shared and (helper.commands or helper.client is not None)
    python = shlex.join([*start_words(helper), "--in-image", "python"]) if found else ""
    return ("/bin/sh", "-c", _ENTER, f"{{{FILE}}}", python, *argv), {FILE: os.path.join(helper.folder, "socket")}


class Running:
    """A helper's process, seen from the launcher."""

    def __init__(self, helper: Helper) -> None:
        """Start it; it listens when this returns.

        Raises:
            OSError: There is no room for its folder, or for one more process.
        """
        os.mkdir(helper.folder, 0o700)
        try:
            _furnish(helper)
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(os.path.join(helper.folder, "socket"))
                listener.listen(_AT_ONCE)
                with pipes(2) as (leash, self._leash, self._over, alive):
                    child = os.fork()
                if child == 0:
                    try:
                        _only({listener.fileno(), leash, alive})
                        _Helper(helper, listener, leash).serve()
                    finally:
                        os._exit(0)
        except BaseException:
            shutil.rmtree(helper.folder, ignore_errors=True)
            raise
        for descriptor in (leash, alive):
            os.close(descriptor)

    def finish(self) -> None:
        """Have it end its jobs and itself, and wait for that."""
        os.close(self._leash)
        waiting = select.poll()
        waiting.register(self._over, select.POLLIN)
        end = time.monotonic() + _END
        while not waiting.poll(max(0.0, end - time.monotonic()) * 1000) and time.monotonic() < end:
            pass
        os.close(self._over)


def _furnish(helper: Helper) -> None:
    """Fill the folder that is shown inside."""
    python = os.path.join(helper.folder, "python")
    os.mkdir(python)
    module = os.path.join(os.path.dirname(__file__), "hpcbinder_workers.py")
    shutil.copyfile(module, os.path.join(python, "hpcbinder_workers.py"))
    files = {f"bin/{name}": _STAND_IN for name in COMMANDS} if helper.commands else {}
    if helper.client is not None:
        files = dict(helper.client.files)
        for name in helper.client.folders:
            os.makedirs(os.path.join(helper.folder, name))
    for name, text in files.items():
        path = os.path.join(helper.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        mode = 0o755 if name.startswith("bin/") else 0o644
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, mode)
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)


def _only(kept: set[int]) -> None:
    """Close every descriptor but these: whoever waits for an end of another one must not wait for this process."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(name) > 2 and int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                pass


class _Helper:
    def __init__(self, helper: Helper, listener: socket.socket, leash: int) -> None:
        self._helper = helper
        self._listener = listener
        self._leash = leash
        self._jobs = WorkerJobs(helper)
        self._room = threading.BoundedSemaphore(_AT_ONCE)
        self._commands: set[subprocess.Popen[bytes]] = set()

    def serve(self) -> None:
        """Answer until the launcher is gone, or this process is told to end."""
        os.setsid()
        if self._helper.client is not None:
            self._early_launcher()
        told, tell = os.pipe()
        os.set_blocking(tell, False)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        waiting = select.poll()
        for descriptor in (self._listener.fileno(), self._leash, told):
            waiting.register(descriptor, select.POLLIN)
        try:
            while True:
                ready = dict(waiting.poll())
                if self._leash in ready or told in ready:
                    break
                self._let_in()
        finally:
            self._listener.close()
            shutil.rmtree(self._helper.folder, ignore_errors=True)
            for process in list(self._commands):
                process.terminate()
            self._jobs.end()

    def _let_in(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # who asked is gone, or there is no room for one more descriptor
            time.sleep(0.1)
            return
        if not self._room.acquire(blocking=False):
            connection.close()
            return
        try:
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()
        except RuntimeError:  # no thread can be started now (pthread_create(3), EAGAIN)
            self._room.release()
            connection.close()

    def _early_launcher(self) -> None:
        """Scripts of dask-jobqueue name it, and a bound sbatch does not come by here."""
        try:
            self._jobs.launcher()
        except (LaunchError, OSError):
            pass  # who asks for workers is told

    def _answer(self, connection: socket.socket) -> None:
        descriptors: list[int] = []
        try:
            with connection:
                connection.settimeout(_SECONDS)
                try:
                    _same_person(connection)
                    request = _request(connection, descriptors)
                    answer = self._do(request, descriptors, connection)
                except (LaunchError, OSError, ValueError, RecursionError) as error:
                    answer = {"refused": str(error) or type(error).__name__}
                connection.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            pass  # who asked is gone
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            self._room.release()

    def _do(self, request: Mapping[str, Any], descriptors: list[int], connection: socket.socket) -> dict[str, Any]:
        what = request.get("do")
        if what == "hello":
            return {"address": address(controller(self._helper.environ))}
        if what == "start":
            asked = asked_for(request.get("asked", {}), self._helper.asked)
            return {"job": self._jobs.start(worker(str(request.get("kind")), request.get("values")), asked)}
        if what == "jobs":
            return {"jobs": self._jobs.states()}
        if what == "cancel":
            numbers = request.get("jobs")
            self._jobs.cancel(numbers if isinstance(numbers, list) else [])
            return {}
        if what == "command" and self._helper.commands:
            return {"code": self._command(request, descriptors, connection)}
        raise LaunchError("the site lets no commands in" if what == "command" else "nothing that is done here")

    def _command(self, request: Mapping[str, Any], descriptors: list[int], connection: socket.socket) -> int:
        argv, cwd = request.get("argv"), request.get("cwd")
        if not isinstance(argv, list) or not all(isinstance(word, str) and "\0" not in word for word in argv):
            raise LaunchError("a command is a list of words")
        if not argv or argv[0] not in COMMANDS or len(descriptors) != 3:
            raise LaunchError(f"not a command that is run here: {ascii(argv[:1])[:80]}")
        program = shutil.which(argv[0], path=self._helper.environ.get("PATH", os.defpath))
        if program is None:
            raise LaunchError(f"there is no {argv[0]} on this machine")
        if argv[0] == "sbatch" and self._helper.shared:
            self._jobs.launcher()  # dask-jobqueue's scripts name it
        # A folder of the image alone is none here.
        there = isinstance(cwd, str) and os.path.isabs(cwd) and "\0" not in cwd and os.path.isdir(cwd)
        process = subprocess.Popen(
            [program, *argv[1:]],
            env=dict(self._helper.environ),
            cwd=cwd if there else self._helper.cwd,
            stdin=descriptors[0],
            stdout=descriptors[1],
            stderr=descriptors[2],
            start_new_session=True,
        )
        self._commands.add(process)
        try:
            return _ended(process, connection)
        finally:
            self._commands.discard(process)


def _ended(process: subprocess.Popen[bytes], connection: socket.socket) -> int:
    """Wait for a command, which ends when nobody waits for it inside any more."""
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    pause = 1.0
    while (code := process.poll()) is None:
        if waiting.poll(pause):
            process.terminate()
            code = process.wait()
            break
        pause = min(pause * 2, 100.0)
    return code if code >= 0 else 128 - code


def _same_person(connection: socket.socket) -> None:
    """The folder's mode keeps others out; so does the kernel's word on who connected (unix(7), SO_PEERCRED)."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    if struct.unpack("3i", packed)[1] != os.getuid():
        raise LaunchError("this serves somebody else")


def _request(connection: socket.socket, descriptors: list[int]) -> Mapping[str, Any]:
    """Read a request, and the descriptors that come along.

    Raises:
        LaunchError: It is none.
        OSError: It is not told in time.
        ValueError: It is no JSON.
    """
    text = b""
    end = time.monotonic() + _SECONDS
    while not text.endswith(b"\n"):
        part, received, _, _ = socket.recv_fds(connection, 1 << 16, 3)
        descriptors += received
        text += part
        if not part or len(text) > _LONGEST or len(descriptors) > 3 or time.monotonic() > end:
            raise LaunchError("not a request")
    request = json.loads(text)
    if not isinstance(request, dict):
        raise LaunchError("not a request")
    return request

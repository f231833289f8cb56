"""Running a repository's code in its image to see what it does: apart from the person's files, bounded, and off the
network if that can be.

The same description, entrypoint and environment as a kernel's (`describe`), and on top of it an empty home, a `/tmp` of
its own, process ids of its own. Facts checked against Apptainer 1.4.5: `--net --network none` leaves only `lo`, which
is up, and ordinary users may say it, with user namespaces too. Where it is refused, `offline` is put in front.
"""

from __future__ import annotations

import dataclasses
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcbinder import process
from hpcbinder.config import RuntimeConfig
from hpcbinder.errors import RunError
from hpcbinder.model import Entry
from hpcbinder.runtime.describing import describe
from hpcbinder.runtime.launch.environment import host_environment, without_own_containers
from hpcbinder.runtime.launch.processes import descendants
from hpcbinder.runtime.launch.starting import prepare
from hpcbinder.runtime.launch.values import Command, LaunchError

HOME = "/home/verify"
"""The empty home, inside."""
_CHUNK = 64 * 1024
_KEPT = 16
"""Chunks of what a command prints that are remembered: its end."""
_GLANCE = 0.25
"""Seconds between looks at the memory."""
_PATIENCE = 20.0
"""Seconds in which what was killed is gone."""
_PROBE_TIME = 120.0
"""Seconds: a cold parallel file system takes long to mount the first time."""
_MARK = "hpcbinder-network:"

_SUPERVISE = """\
import os, sys
sys.path.insert(0, sys.argv[1])
from launch.supervise import supervise
from launch.values import Command
sys.exit(supervise(Command(tuple(sys.argv[3:]), dict(os.environ), stays=True), parent=int(sys.argv[2])))
"""

_GIVEN = ("APPTAINERENV_", "SINGULARITYENV_")
"""What variables begin with that Apptainer hands to a container."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code, None if it was ended.
        why: `time` or `memory` if it was ended for that, else "".
        said: The end of what it printed.
    """

    code: int | None
    why: str
    said: str


class Secluded:
    """Runs commands in an image with Apptainer or Singularity.

    Args:
        entry: The image.
        settings: How images are run here.
        room: An empty folder; what a command leaves in its home and in /tmp lies there.
        network: Whether commands may have the network.

    Attributes:
        runtime: Its name.
        offline: There is no network.
        note: What a person should know of it, "" for nothing.

    Raises:
        RunError: There is no such runtime, or it cannot run the image.
    """

    def __init__(self, entry: Entry, settings: RuntimeConfig, room: Path, *, network: bool) -> None:
        if settings.name == "auto":
            settings = dataclasses.replace(settings, name="apptainer")
        if settings.name not in ("apptainer", "singularity"):
            raise RunError(
                f"a repository's code is tried with Apptainer or Singularity, not with {settings.name}",
                hint="--runtime apptainer",
            )
        self._entry, self._settings, self._room = entry, settings, room
        for name in ("home", "work"):
            (room / name).mkdir(mode=0o700)
        self.runtime = ""
        self.offline, self.note, self._how = False, "", ""
        reasons = []
        for how in ("",) if network else ("option", "namespace", ""):
            self._how = how
            ended = self.run(["/bin/sh", "-c", f"echo {_MARK}; cat /proc/net/dev"], seconds=_PROBE_TIME)
            _, mark, listed = ended.said.partition(_MARK)
            if not mark or ended.code != 0:
                reasons.append(" ".join(ended.said.split())[-300:] or f"status {ended.code}")
                continue
            if not how:
                break
            self.offline = set(re.findall(r"^\s*([^\s:]+):", listed, re.M)) <= {"lo"}
            if self.offline:
                break
            reasons.append("it is still there")
        else:
            raise RunError(f"{self.runtime} cannot run {entry.id} here: {reasons[-1]}", hint="hpcbinder doctor")
        if not network and not self.offline:
            self.note = f"the network cannot be switched off here: {reasons[0]}"

    def run(
        self,
        argv: Sequence[str],
        *,
        seconds: float,
        memory: int = 0,
        binds: Sequence[tuple[Path, str, bool]] = (),
    ) -> Ended:
        """Run a command to its end, or end it; nothing of it is left.

        Args:
            argv: The command inside.
            seconds: How long it may take.
            memory: Bytes that its processes may have together, 0 for any. Looked at a few times a second.
            binds: (source, target, writable).

        Raises:
            RunError: It cannot be started.
        """
        words = [f"{source}:{target}:{'rw' if writable else 'ro'}" for source, target, writable in binds]
        command = self._command(argv, words)
        keeper = [sys.executable, "-I", "-S", "-c", _SUPERVISE, str(Path(__file__).parent), str(os.getpid())]
        try:
            child = process.start([*keeper, *command.argv], env=command.env, cwd=self._room)
        except OSError as error:
            raise RunError(f"{command.argv[0]} cannot be started: {error.strerror}") from error
        said: deque[bytes] = deque(maxlen=_KEPT)
        why = ""
        try:
            why = _watch(child, said, seconds, memory)
            code = None if why else child.wait()
        finally:
            _end(child)
        return Ended(code, why, b"".join(said).decode("utf-8", "replace"))

    def _command(self, argv: Sequence[str], binds: Sequence[str]) -> Command:
        settings = dataclasses.replace(self._settings, binds=(*self._settings.binds, *binds))
        # Neither the person's home nor the job's temporary folder is shown.
        environ = {name: value for name, value in without_own_containers(os.environ).items() if name != "TMPDIR"}
        environ = {**host_environment(environ), "HOME": str(self._room / "home")}
        try:
            description = describe(self._entry, settings, argv=argv, environ=environ)
            self.runtime = str(description["runtime"])
            command = prepare(description, environ=environ, cwd="/")
        except LaunchError as error:
            raise RunError(str(error)) from error
        at = command.argv.index("exec") + 1
        home = f"{self._room / 'home'}:{HOME}"
        options = ["--containall", "--workdir", str(self._room / "work"), "--home", home]
        # A set-user-id program has no such power in a namespace of ours: it is told to use one itself.
        options += {"option": ["--net", "--network", "none"], "namespace": ["--userns"]}.get(self._how, [])
        words = [*command.argv[:at], *options, *command.argv[at:]]
        if self._how == "namespace":
            words = [sys.executable, "-I", "-S", str(Path(__file__).with_name("offline.py")), *words]
        # Nor what the prologue sets for them; the variables of the image's own are given by such names, too.
        given = {name: value for name, value in command.env.items() if name.startswith(_GIVEN)}
        return dataclasses.replace(command, argv=tuple(words), env={**without_own_containers(command.env), **given})


def _watch(child: subprocess.Popen[bytes], said: deque[bytes], seconds: float, memory: int) -> str:
    """Read what a command prints until it ends, or say why it must."""
    assert child.stdout is not None
    end = time.monotonic() + seconds
    reading = select.poll()
    reading.register(child.stdout.fileno(), select.POLLIN)
    look = 0.0
    while True:
        now = time.monotonic()
        if now > end:
            return "time"
        if memory and now > look:
            look = now + _GLANCE
            if _memory(child.pid) > memory:
                return "memory"
        if reading.poll(min(_GLANCE, max(end - now, 0)) * 1000):
            chunk = os.read(child.stdout.fileno(), _CHUNK)
            if not chunk:
                return ""
            said.append(chunk)


def _memory(pid: int) -> int:
    """Bytes that the processes below one have for themselves."""
    total = 0
    for found in descendants(pid):
        try:
            resident, shared = Path(f"/proc/{found.pid}/statm").read_text().split()[1:3]
        except (OSError, ValueError):
            continue
        total += int(resident) - int(shared)
    return total * os.sysconf("SC_PAGE_SIZE")


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill what still runs, and wait for the last process of it: the one who holds its output."""
    if child.poll() is None:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
    if child.stdout is None or child.stdout.closed:
        return
    end = time.monotonic() + _PATIENCE
    waiting = select.poll()
    waiting.register(child.stdout.fileno(), select.POLLIN)
    while (left := end - time.monotonic()) > 0 and waiting.poll(left * 1000):
        if not os.read(child.stdout.fileno(), _CHUNK):
            break
    child.stdout.close()

"""An ordinary user to run things as, without an account on the machine.

The account exists only in the mount namespace of the processes that run as it: copies of ``/etc/passwd``,
``/etc/group``, ``/etc/subuid`` and ``/etc/subgid`` with one line more are bound over the real ones there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from . import packages
from .process import Process, RigError

NAME = "hpcbinder-test"
PACKAGES = ("iproute2", "mount", "uidmap", "util-linux")
IDS = range(58000, 58100)  # above what adduser hands out early, below Debian's reserved ones
_SUBIDS = 65536
_LOCKS = Path("/run/lock/hpcbinder-rig")

# $1: folder with the files, $2: 1 for no network, $3: id, then the command.
_ENTER = """
set -eu
for name in passwd group subuid subgid hosts; do
    if [ -e "$1/$name" ] && [ -e "/etc/$name" ]; then mount --bind "$1/$name" "/etc/$name"; fi
done
if [ "$2" = 1 ]; then ip link set lo up; fi
id=$3
shift 3
exec setpriv --reuid "$id" --regid "$id" --clear-groups --inh-caps=-all -- "$@"
"""


class User:
    """An unprivileged user with an id and a home folder that no other test session has.

    Args:
        folder: The rig's state folder; every user must be able to reach it.
        keeps: The home outlives the session, as a cache; the id is taken from the other end then, so that it is mostly
            the same one.
        name: Of the account.

    Raises:
        RigError: not root, or the folder is closed to other users.
    """

    def __init__(self, folder: Path, *, keeps: bool = False, name: str = NAME) -> None:
        if os.geteuid() != 0:
            raise RigError("running as another user needs root (run the same command with sudo)")
        packages.ensure(PACKAGES)
        closed = next((part for part in (folder, *folder.parents) if not part.stat().st_mode & 0o001), None)
        if closed is not None:
            raise RigError(f"ordinary users cannot reach {folder}: {closed} is closed to them")
        self.name = name
        (folder / "users").mkdir(mode=0o755, exist_ok=True)
        self.uid, self._lock = _free_id(IDS[::-1] if keeps else IDS)
        self._files = folder / "users" / str(self.uid)
        self.home = self._files / "home"
        self._keeps = keeps
        self._end()  # after a session that was killed
        subids = {file: f"{name}:{_free_subids(Path('/etc') / file)}:{_SUBIDS}\n" for file in ("subuid", "subgid")}
        kept = self._files / "kept"
        if not keeps or not kept.exists() or kept.read_text() != "".join(subids.values()):
            shutil.rmtree(self._files, ignore_errors=True)
            self._files.mkdir(mode=0o755)
            self.home.mkdir(mode=0o700)
            os.chown(self.home, self.uid, self.uid)
        if keeps:
            kept.write_text("".join(subids.values()))
        for file, line in self.lines.items():
            self._write(file, line)
        for file, line in subids.items():
            (Path("/etc") / file).touch()  # something to mount over
            self._write(file, line)

    @property
    def lines(self) -> dict[str, str]:
        """Its lines of /etc/passwd and /etc/group."""
        return {
            "passwd": f"{self.name}:x:{self.uid}:{self.uid}::{self.home}:/bin/sh\n",
            "group": f"{self.name}:x:{self.uid}:\n",
        }

    @property
    def lock(self) -> int:
        """The descriptor whose lock says that the id is taken: it is as long as any process has it open."""
        return self._lock.fileno()

    def knows(self, hosts: Path) -> None:
        """Have this user's processes see another /etc/hosts, until the session ends."""
        self._write("hosts", "", hosts.read_text())

    def close(self) -> None:
        """End what still runs as this user and remove its files, unless they are kept; the id is free again."""
        self._end()
        if not self._keeps:
            shutil.rmtree(self._files, ignore_errors=True)
        self._lock.close()

    def _write(self, name: str, line: str, text: str | None = None) -> None:
        """A file to be seen below /etc: the machine's, or `text`, with one line more."""
        if text is None:
            text = (Path("/etc") / name).read_text()
        partial = self._files / f".{name}.{os.getpid()}"
        partial.write_text(text + ("" if not text or text.endswith("\n") else "\n") + line)
        partial.chmod(0o644)
        partial.replace(self._files / name)

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """A login's environment, nothing of root's; with ``env`` on top."""
        return {
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "LOGNAME": self.name,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "SHELL": "/bin/sh",
            "USER": self.name,
            **(env or {}),
        }

    def command(self, argv: Sequence[str | os.PathLike[str]], *, network: bool = True) -> list[str]:
        """The command line that runs ``argv`` as this user, for whoever starts processes in its own way.

        Each part replaces itself with the next, so the process started is ``argv`` itself: signals reach it. Set
        `environment` too.

        Args:
            argv: Program and arguments.
            network: Without it there is a network namespace with only ``lo``, which is up.
        """
        unshare = ["unshare", "--mount", "--propagation", "slave", *([] if network else ["--net"]), "--"]
        entry = ["/bin/sh", "-c", _ENTER, "rig-user", str(self._files), "" if network else "1", str(self.uid)]
        return [*unshare, *entry, *(os.fspath(part) for part in argv)]

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        network: bool = True,
        timeout: float = 300,
        check: bool = True,
        input: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as this user and wait for it; output is captured as text.

        Args:
            argv: Program and arguments.
            env: Variables besides `environment`'s.
            cwd: Where; the user's home if not given.
            network: Whether there is any besides ``lo``.
            timeout: Seconds.
            check: Fail the test, with both outputs, when the command fails.
            input: What the command reads.
        """
        done = subprocess.run(
            self.command(argv, network=network),
            env=self.environment(env),
            cwd=cwd or self.home,
            timeout=timeout,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if check and done.returncode != 0:
            text = " ".join(os.fspath(part) for part in argv)
            raise AssertionError(
                f"exit {done.returncode}: {text}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
            )
        return done

    def popen(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        network: bool = True,
        stdout: int | IO[Any] | None = subprocess.PIPE,
        stderr: int | IO[Any] | None = subprocess.STDOUT,
    ) -> subprocess.Popen[str]:
        """Start a command as this user, in a session of its own."""
        return subprocess.Popen(
            self.command(argv, network=network),
            env=self.environment(env),
            cwd=cwd or self.home,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def own(self, *paths: Path) -> None:
        """Give files and whole folders to this user."""
        for path in paths:
            os.chown(path, self.uid, self.uid, follow_symlinks=False)
            if path.is_dir() and not path.is_symlink():
                self.own(*path.iterdir())

    @contextlib.contextmanager
    def without_subids(self) -> Iterator[None]:
        """An account that nobody gave subordinate ids, for a while."""
        files = [self._files / name for name in ("subuid", "subgid")]
        kept = [file.read_text() for file in files]
        for file in files:
            self._write(file.name, "", "")
        try:
            yield
        finally:
            for file, text in zip(files, kept, strict=True):
                self._write(file.name, "", text)

    def processes(self) -> dict[Process, str]:
        """What runs as this user, with its command line. Wait a moment after an end: some go a little later."""
        return processes(self.uid)

    def clean(self) -> None:
        """End what still runs as this user, and empty its home."""
        self._end()
        for entry in self.home.iterdir() if self.home.is_dir() else ():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()

    def _end(self) -> None:
        end(self.uid)


def processes(uid: int) -> dict[Process, str]:
    """What runs as a user, with its command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                found[Process.of(int(entry.name))] = line or (entry / "comm").read_text().strip()
    return found


def end(uid: int) -> None:
    """End all that runs as a user."""
    for _ in range(20):  # what is ended may just be starting another
        left = processes(uid)
        if not left:
            break
        for process in left:
            process.signal(signal.SIGKILL)
        for process in left:
            process.wait(1)


@contextlib.contextmanager
def abandoned(uid: int) -> Iterator[bool]:
    """Whether an id is no session's any more; it stays so while this is open.

    Whoever finds it in a record of a session that was killed may only then touch what is that user's: since then it may
    have been given to another.
    """
    lock = _lock(uid)
    with lock or contextlib.nullcontext():
        yield lock is not None


def account(users: Path, uid: int) -> dict[str, str]:
    """Lines of /etc/passwd and /etc/group for a user of a session, as daemons see them that serve several users.

    Args:
        users: The folder of the users' files.
        uid: Of the user, whether or not there is one now.
    """
    name = f"{NAME}-{uid}"
    return {
        "passwd": f"{name}:x:{uid}:{uid}::{users / str(uid) / 'home'}:/bin/sh\n",
        "group": f"{name}:x:{uid}:\n",
    }


def _free_id(ids: Sequence[int]) -> tuple[int, IO[str]]:
    """An id that no account and no other session has, whichever its state folder, and the file whose lock says so."""
    for number in ids:
        with contextlib.suppress(KeyError):
            pwd.getpwuid(number)
            continue
        lock = _lock(number)
        if lock is not None:
            return number, lock
    raise RigError("no free user id for the tests")


def _lock(number: int) -> IO[str] | None:
    """The locked file that says an id is taken, or None when it is already."""
    _LOCKS.mkdir(mode=0o755, parents=True, exist_ok=True)
    lock = (_LOCKS / f"{number}.lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _free_subids(path: Path) -> int:
    """The first id after all the ranges a file gives away."""
    top = 1_000_000_000
    if path.exists():
        for line in path.read_text().splitlines():
            parts = line.split(":")
            if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
                top = max(top, int(parts[1]) + int(parts[2]))
    return top

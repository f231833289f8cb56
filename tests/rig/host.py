"""A host beside this machine: a daemon with a name, a network, processes and accounts of its own, and this machine's
files.

One bridge leads from it to this machine and nowhere else. All that it runs ends with its first process, by request or
by ``kill -9``; nothing in /etc changes.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .bridge import add_bridge, remove_bridge
from .process import Process, RigError
from .user import IDS, User, account

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_SECONDS = 30

# $1: name, $2: folder of what is seen in /etc, $3: address of eth0 with its prefix, $4: that of this machine, $5: 1
# for a /run of its own.
_INIT = """
set -eu
hostname "$1"
for name in passwd group hosts; do
    if [ -e "/etc/$name" ]; then mount --bind "$2/$name" "/etc/$name"; fi
done
if [ "$5" = 1 ]; then mount -t tmpfs -o mode=0755 tmpfs /run; fi
until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
ip link set lo up
ip address add "$3" dev eth0
ip link set eth0 up
# To the other addresses of this machine, which hands nothing on.
ip route add default via "$4"
shift 5
exec "$@"
"""


class Host:
    """One host.

    Args:
        folder: Where its state lies; made by `start`.
        users: The folder of the users' files: their accounts are known there.
        name: Its name; the first four letters are those of its devices.
    """

    def __init__(self, folder: Path, users: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self._users = users
        self._pid = folder / "host.json"
        self.log = folder / "log"

    @property
    def process(self) -> Process | None:
        """The first of its processes as this machine sees it, None if it is down."""
        return Process.load(self._pid)

    @property
    def address(self) -> str:
        """Its address, once it is prepared."""
        return (self.folder / "address").read_text()

    @property
    def hosts(self) -> Path:
        """An /etc/hosts that names it, and this machine as `login`."""
        return self.folder / "etc" / "hosts"

    @property
    def bridge(self) -> str:
        """The name of its bridge device, within the 15 characters there are."""
        # Drawn once for a state folder, not made from its path, as it is for the Docker daemon.
        file = self.folder / "tag"
        if not file.exists():
            file.write_text(secrets.token_hex(3))
        return f"hpc{self.name[:4]}-{file.read_text()}"

    def prepare(self) -> None:
        """Give it its address, and end what was there before.

        Raises:
            RigError: There is no bridge to be had.
        """
        (self.folder / "etc").mkdir(mode=0o755, parents=True, exist_ok=True)
        self.stop()
        (self.folder / "address").write_text(str(add_bridge(self.bridge)[101]))

    def start(
        self,
        command: Sequence[str],
        *,
        accounts: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        own_run: bool = False,
    ) -> None:
        """Bring it up, prepared, with one daemon in the foreground, whose end is its own.

        Args:
            command: The daemon; an absolute path and its arguments.
            accounts: System accounts it needs, by name, where this machine has none of it.
            environment: Of the daemon, besides PATH.
            own_run: It sees an empty /run.

        Raises:
            RigError: There is no bridge to be had, or the daemon cannot be started.
        """
        subnet = add_bridge(self.bridge)
        self._write(str(subnet[1]), str(subnet[101]), accounts)
        unshare = [
            *("/usr/bin/unshare", "--mount", "--propagation", "slave", "--uts", "--net", "--ipc", "--pid", "--fork"),
            *("--kill-child=SIGKILL", "--mount-proc", "--"),
        ]
        entry = ["/bin/sh", "-c", _INIT, "rig-init", self.name, str(self.folder / "etc")]
        argv = [*unshare, *entry, f"{subnet[101]}/{subnet.prefixlen}", str(subnet[1]), "1" if own_run else "", *command]
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                argv,
                env={"PATH": PATH, "LANG": "C.UTF-8", **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process.returncode = 0  # it outlives this program, which is not to be told of it
        with contextlib.suppress(ProcessLookupError):
            Process.of(process.pid).save(self._pid)
        self._connect(process.pid)

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` there as root; a command fails where the host is down."""
        process = self.process
        target = str(process.pid) if process else "0"
        return ["/usr/bin/nsenter", "--target", target, "--mount", "--net", "--uts", "--", *argv]

    def knows(self, user: User) -> None:
        """Have it know a user by name, first of all that are that user there; until it is started again."""
        for name, line in user.lines.items():
            file = self.folder / "etc" / name
            text = file.read_text()
            if line not in text:
                file.write_text(line + text)  # in place: it is mounted

    def stop(self) -> None:
        """End all that runs there, and remove its bridge."""
        process = self.process
        if process is not None:
            for child in process.children():
                child.stop(0)  # the first of its processes, with which all others end
            process.stop(5)
        self._pid.unlink(missing_ok=True)
        if (self.folder / "tag").exists():
            remove_bridge(self.bridge)

    def last_words(self) -> str:
        """The end of what it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:]) if self.log.exists() else ""

    def _write(self, login: str, own: str, accounts: Sequence[str]) -> None:
        self.hosts.write_text(f"127.0.0.1 localhost\n{login} login\n{own} {self.name}\n")
        for name in ("passwd", "group"):
            text = Path("/etc", name).read_text().rstrip("\n") + "\n"
            known = {line.partition(":")[0] for line in text.splitlines()}
            # Below those of the tests' users, which come and go while it is up.
            for number, extra in enumerate(accounts, start=1):
                if extra not in known:
                    number = IDS[0] - number
                    rest = f"{number}:{number}::/nonexistent:/usr/sbin/nologin" if name == "passwd" else f"{number}:"
                    text += f"{extra}:x:{rest}\n"
            text += "".join(account(self._users, uid)[name] for uid in IDS)
            (self.folder / "etc" / name).write_text(text)

    def _connect(self, pid: int) -> None:
        """Give its network namespace one end of a cable, once there is one."""
        end = time.monotonic() + _SECONDS
        mine = Path("/proc/self/ns/net").readlink()
        with contextlib.suppress(OSError):
            while Path(f"/proc/{pid}/ns/net").readlink() == mine and time.monotonic() < end:
                time.sleep(0.01)
        cable = self.bridge.replace("hpc", "v", 1)
        for arguments in (
            ["link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(pid)],
            ["link", "set", cable, "master", self.bridge, "up"],
        ):
            done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
            if done.returncode != 0:
                words = self.last_words()
                self.stop()
                raise RigError(f"cannot connect {self.name} to its bridge: {done.stderr.strip()} {words}")

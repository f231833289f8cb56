"""A Docker daemon of the rig's own, beside whatever daemon the machine has.

It runs in mount and PID namespaces of its own: when it ends, by request or by ``kill -9``, its containers, its
containerd and its mounts end with it. What remains outside is one bridge device and a cgroup, which `Dockerd.down`
removes, and the data folder, which is kept as a cache.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

from . import packages
from .bridge import add_bridge, remove_bridge
from .process import Process, RigError, locked, mounts_below

PACKAGES = ("iproute2", "mount", "util-linux")
DAEMON = ("docker.io",)
# Debian 13 took the client and BuildKit's front end out of docker.io.
OPTIONAL = ("docker-cli", "docker-buildx")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # not /usr/local: a client or daemon put there is another version
_START_SECONDS = 60
_STOP_SECONDS = 25

# Where sockets and other passing things go. The first cannot be chosen, and dockerd would use the system's containerd
# where it finds a socket there. The daemon sees empty ones of its own, with paths short enough for a socket's address.
_SHARED = ("/run/containerd", "/run/docker")

# Runs as PID 1 of the new namespaces. /etc/docker: Docker before 24 writes a key there.
_INIT = """
set -eu
umask 022
for folder in /run/containerd /run/docker /etc/docker; do
    if [ -d "$folder" ]; then mount -t tmpfs -o mode=0711 tmpfs "$folder"; fi
done
exec "$@"
"""


class Dockerd:
    """Debian's Docker daemon with data, socket, bridge and cgroup of its own.

    Args:
        folder: The rig's state folder.
    """

    name = "dockerd"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._run = folder / "run"
        self._pid = self._run / "dockerd.json"
        self.socket = self._run / "docker.sock"
        self.log = self._run / "dockerd.log"
        self.data = folder / "docker"
        self._made = self._run / "made-folders"

    @property
    def bridge(self) -> str:
        """The name of its bridge device, within the 15 characters there are."""
        return f"hpcbrig-{self._tag}"

    @property
    def cgroup(self) -> str:
        """The cgroup above those of its containers."""
        return f"/hpcbinder-rig-{self._tag}"

    @property
    def _tag(self) -> str:
        # Drawn once for a state folder, not made from its path: roots side by side (containers, chroots) that share
        # the machine's network have their state at the same path.
        file = self._run / "rig-tag"
        if not file.exists():
            file.write_text(secrets.token_hex(3))
        return file.read_text()

    @property
    def host(self) -> str:
        """The daemon's address as ``DOCKER_HOST`` takes it."""
        return f"unix://{self.socket}"

    @property
    def environment(self) -> dict[str, str]:
        """What a Docker client needs in its environment to speak with this daemon."""
        return {"DOCKER_HOST": self.host}

    @property
    def client(self) -> str:
        """The client of the Debian package: a newer one in front of it on PATH may have no builder."""
        return "/usr/bin/docker"

    @property
    def where(self) -> str:
        """The address, for a person."""
        return self.host

    @property
    def up(self) -> bool:
        """Whether the daemon runs and answers."""
        return Process.load(self._pid) is not None and self._answers()

    def start(self) -> None:
        """Bring the daemon up, or find it up.

        Raises:
            RigError: not root, a package cannot be had, or the daemon does not come up (with the end of its log).
        """
        if self.up:
            return
        if os.geteuid() != 0:
            raise RigError("a Docker daemon for the tests needs root (run the same command with sudo)")
        if _executable() is None:  # a machine may have Docker's own packages, which exclude Debian's
            packages.ensure(DAEMON, optional=OPTIONAL)
        packages.ensure(PACKAGES)
        if len(os.fsencode(self.socket)) > 100:
            raise RigError(f"the path is too long for a socket's address: {self._run} (set HPCBINDER_RIG)")
        self._run.mkdir(mode=0o755, parents=True, exist_ok=True)
        with locked(self._run / "dockerd.lock"):
            if self.up:
                return
            self._stop()
            add_bridge(self.bridge)
            self._spawn()

    def stop(self) -> None:
        """End the daemon and its containers; remove its bridge, cgroup and mounts. Its data stays as a cache."""
        if self._run.is_dir():
            with locked(self._run / "dockerd.lock"):
                self._stop()

    def _spawn(self) -> None:
        executable = _executable()
        if executable is None:
            raise RigError("dockerd is not where Debian's docker.io puts it")
        self.data.mkdir(mode=0o710, parents=True, exist_ok=True)
        settings = self._run / "daemon.json"
        settings.write_text("{}\n")
        pidfile = self._run / "dockerd.pid"
        pidfile.unlink(missing_ok=True)  # it would name PID 1: itself
        missing = [folder for folder in _SHARED if not Path(folder).is_dir()]
        self._made.write_text("\n".join(missing))
        for folder in missing:
            Path(folder).mkdir(mode=0o711)
        command = [
            *(
                "/usr/bin/env",
                "--chdir=/",
                "/usr/bin/unshare",
                "--mount",
                "--propagation",
                "slave",
                "--pid",
                "--fork",
                "--kill-child=SIGKILL",
            ),
            *("--mount-proc", "/bin/sh", "-c", _INIT, "rig-init", executable),
            f"--config-file={settings}",
            f"--host={self.host}",
            f"--data-root={self.data}",
            "--exec-root=/run/docker",
            f"--pidfile={pidfile}",
            "--containerd-namespace=hpcbinder-rig",
            "--containerd-plugins-namespace=hpcbinder-rig-plugins",
            f"--storage-driver={self._storage_driver()}",
            f"--bridge={self.bridge}",
            # The machine's firewall and routing stay as they are: containers reach the net by --network host.
            *("--iptables=false", "--ip-masq=false", "--ip-forward=false"),
            "--exec-opt=native.cgroupdriver=cgroupfs",
            f"--cgroup-parent={self.cgroup}",
            f"--group={_owner()[1]}",
            "--log-level=warn",
        ]
        if _version(executable) < 24:
            # The default needs CAP_SYS_RESOURCE; later versions have no such option.
            command.append("--oom-score-adjust=0")
        environment = {
            name: value
            for name, value in os.environ.items()
            if name.lower() in ("http_proxy", "https_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir")
        }
        environment["PATH"] = _PATH
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pid = os.posix_spawn(
                command[0],
                command,
                environment,
                setsid=True,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, null, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
            )
        finally:
            os.close(log)
            os.close(null)
        try:
            process = Process.of(pid)
        except ProcessLookupError:
            raise RigError(f"dockerd did not start:\n{self._log_end()}") from None
        process.save(self._pid)
        end = time.monotonic() + _START_SECONDS
        while not self._answers():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            if not process.alive or time.monotonic() > end:
                text = self._log_end()
                self._stop()
                raise RigError(f"dockerd did not come up here; the end of {self.log}:\n{text}")
            time.sleep(0.05)
        if _owner()[0]:
            os.chown(self.socket, _owner()[0], _owner()[1])

    def _stop(self) -> None:
        process = Process.load(self._pid)
        if process is not None:
            self._kill_containers()
            for child in process.children():  # the daemon itself, PID 1 of its namespace
                child.stop(_STOP_SECONDS)
            process.stop(5)
        self._pid.unlink(missing_ok=True)
        if self._made.exists():
            for name in self._made.read_text().split():
                with contextlib.suppress(OSError):  # another daemon came and uses it
                    Path(name).rmdir()
            self._made.unlink()
        for point in (*mounts_below(self.data), *mounts_below(self._run)):
            subprocess.run(["umount", "--lazy", "--", str(point)], capture_output=True)
        remove_bridge(self.bridge)
        self._remove_cgroup()
        self.socket.unlink(missing_ok=True)

    def _kill_containers(self) -> None:
        """End containers at once: the daemon's own stop gives each of them ten seconds."""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            for container in json.loads(self.request("GET", "/containers/json")):
                self.request("POST", f"/containers/{container['Id']}/kill")

    def _remove_cgroup(self) -> None:
        base = Path("/sys/fs/cgroup")
        for top in (base, *(entry for entry in base.glob("*") if entry.is_dir())):
            ours = top / self.cgroup.lstrip("/")
            for folder, _, _ in os.walk(ours, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()

    def _storage_driver(self) -> str:
        """What works in the data folder. overlay2 does not on an overlay file system (a container's root)."""
        chosen = os.environ.get("HPCBINDER_RIG_STORAGE")
        if chosen:
            return chosen
        probe = self.data / "probe"
        for part in ("lower", "upper", "work", "merged"):
            (probe / part).mkdir(parents=True, exist_ok=True)
        options = f"lowerdir={probe}/lower,upperdir={probe}/upper,workdir={probe}/work"
        try:
            done = subprocess.run(
                ["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", options, str(probe / "merged")],
                capture_output=True,
            )
        finally:
            shutil.rmtree(probe, ignore_errors=True)
        if done.returncode == 0:
            return "overlay2"
        if Path("/dev/fuse").exists():
            packages.ensure(("fuse-overlayfs", "fuse3"))
            return "fuse-overlayfs"
        return "vfs"

    def _answers(self) -> bool:
        try:
            return self.request("GET", "/_ping") == b"OK"
        except (OSError, http.client.HTTPException):
            return False

    def request(self, method: str, path: str) -> bytes:
        """Ask the daemon's API, for example ``GET /info``.

        Raises:
            OSError: it does not answer.
        """
        connection = _UnixConnection(str(self.socket))
        try:
            connection.request(method, path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def _log_end(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:]) if self.log.exists() else "(no log)"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(5)
        self.sock.connect(self._path)


def _owner() -> tuple[int, int]:
    """Who may use the socket: root, or the person who said sudo."""
    return int(os.environ.get("SUDO_UID", "0")), int(os.environ.get("SUDO_GID", "0"))


def _executable() -> str | None:
    return shutil.which("dockerd", path=_PATH)


def _version(executable: str) -> int:
    text = subprocess.run([executable, "--version"], capture_output=True, text=True).stdout
    match = re.search(r"version (\d+)", text)
    return int(match[1]) if match else 0

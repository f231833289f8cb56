"""A login node that is reached by SSH: OpenSSH's server on a host of its own.

Its program is Debian's, unpacked in a folder of the rig: a machine does not get a door by running tests.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from . import packages
from .host import Host
from .process import RigError, locked
from .user import User

# The server's package itself is not among them: with it a machine opens its port 22 when it starts the next time.
PACKAGES = ("iproute2", "libgssapi-krb5-2", "libpam0g", "libwrap0", "mount", "openssh-client", "util-linux")
NAME = "gate"
_PORT = 2222
_SECONDS = 30

# Accounts are the rig's, and so is what PAM would ask for.
_CONFIGURATION = """\
Port {port}
HostKey {folder}/host_key
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
TrustedUserCAKeys {folder}/authority.pub
LogLevel VERBOSE
"""


class Sshd:
    """A login node with OpenSSH's server.

    Args:
        folder: The rig's state folder.
    """

    name = "sshd"
    port = _PORT

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "sshd"
        self._users = folder / "users"
        self._host = Host(self.folder / "host", self._users, NAME)

    @property
    def host(self) -> str:
        """Its address."""
        return self._host.address

    @property
    def known_hosts(self) -> str:
        """A line of ssh's known_hosts that says which host key is its own."""
        kind, key = (self.folder / "host_key.pub").read_text().split()[:2]
        return f"[{self.host}]:{_PORT} {kind} {key}\n"

    @property
    def authority(self) -> Path:
        """The private key whose certificates it takes."""
        return self.folder / "authority"

    @property
    def log(self) -> Path:
        """What it said."""
        return self._host.log

    @property
    def where(self) -> str:
        """How to use it, for a person."""
        address = self._host.folder / "address"
        return f"ssh -p {_PORT} {address.read_text() if address.exists() else NAME}"

    @property
    def up(self) -> bool:
        """Whether it answers."""
        return self._host.process is not None and self._answers()

    def start(self) -> None:
        """Bring it up, or find it up.

        Raises:
            RigError: Not root, a package cannot be had, or it does not come up (with the end of its log).
        """
        if self.up:
            return
        if os.geteuid() != 0:
            raise RigError("an SSH server for the tests needs root (run the same command with sudo)")
        packages.ensure(PACKAGES)
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        with locked(self.folder / "lock"):
            if self.up:
                return
            root = self._unpacked()
            for name in ("host_key", "authority"):
                if not (self.folder / name).exists():
                    self._make_key(self.folder / name)
            lines = _CONFIGURATION.format(port=_PORT, folder=self.folder)
            # Since 9.8 it is several programs, each at a place that was chosen when it was built.
            for option, program in (("SshdSessionPath", "sshd-session"), ("SshdAuthPath", "sshd-auth")):
                if (root / "usr/lib/openssh" / program).exists():
                    lines += f"{option} {root}/usr/lib/openssh/{program}\n"
            (self.folder / "sshd_config").write_text(lines)
            # Its separated processes sit in /run/sshd, which another machine's is none of.
            command = f"mkdir -m 755 /run/sshd && exec {root}/usr/sbin/sshd -D -e -f {self.folder}/sshd_config"
            self._host.prepare()
            self._host.start(["/bin/sh", "-c", command], accounts=["sshd"], own_run=True)
            self._wait()

    def knows(self, user: User) -> None:
        """Have a user be known by name there, until it is started again."""
        self._host.knows(user)

    def stop(self) -> None:
        """End it, and all that was started by it."""
        if self.folder.is_dir():
            with locked(self.folder / "lock"):
                self._host.stop()

    def _unpacked(self) -> Path:
        root = self.folder / "root"
        if not root.is_dir():
            partial = self.folder / "root.partial"
            shutil.rmtree(partial, ignore_errors=True)
            packages.unpack("openssh-server", partial)
            partial.rename(root)
        return root

    def _make_key(self, path: Path) -> None:
        subprocess.run(
            ["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rig", "-f", str(path)],
            check=True,
            capture_output=True,
        )

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, _PORT), timeout=5) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _wait(self) -> None:
        end = time.monotonic() + _SECONDS
        while not self._answers():
            if self._host.process is None or time.monotonic() > end:
                words = self._host.last_words()
                self._host.stop()
                raise RigError(f"sshd did not come up here; the end of its log:\n{words}")
            time.sleep(0.05)

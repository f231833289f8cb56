"""A pool of HTCondor on one host of its own, jobs of which run as the users who submitted them.

Debian 12 has no HTCondor, the release after it has: its package and those of the libraries it loads are fetched by apt
(so Debian's signatures are checked), unpacked in a folder of the rig, and its programs told where those libraries are.
What jobs run is this machine's, as is what they read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from . import packages
from .apptainer import mirror
from .host import PATH, Host
from .process import RigError, locked
from .user import IDS, User

PACKAGES = ("debian-archive-keyring", "iproute2", "mount", "patchelf", "util-linux")
NAME = "condor"
_SUITE = "trixie"
_UNPACKED = (
    *("condor", "libc6", "libgcc-s1", "libgomp1", "libpcre2-8-0", "libssl3t64", "libstdc++6", "libuuid1", "libzstd1"),
    "zlib1g",
)
_SECONDS = 60
_ID = IDS[0] - 1
"""Whom its daemons are when they are nobody's; the one that `Host` gives the first account."""
_PROGRAMS = ("usr/bin/condor_*", "usr/sbin/condor_*", "usr/libexec/condor/*", "usr/lib/condor/libexec/*")
_LIBRARIES = ("usr/lib/libcondor*", "usr/lib/libclassad*")

# Debian's own defaults point below / and are not read. A user's password is never known here: whoever can make a file
# as somebody is taken for them (FS), as it is among the machines of a pool that share one.
_CONFIGURATION = """\
RELEASE_DIR = {root}/usr
BIN = {root}/usr/bin
SBIN = {root}/usr/sbin
LIB = {root}/usr/lib
LIBEXEC = {libexec}
LOCAL_DIR = {folder}/state
LOCAL_CONFIG_FILE =
LOCAL_CONFIG_DIR =
LOG = $(LOCAL_DIR)/log
SPOOL = $(LOCAL_DIR)/spool
EXECUTE = $(LOCAL_DIR)/execute
LOCK = $(LOCAL_DIR)/lock
RUN = $(LOCAL_DIR)/run
CONDOR_HOST = {address}
NETWORK_INTERFACE = {address}
NETWORK_HOSTNAME = {name}
UID_DOMAIN = rig
FILESYSTEM_DOMAIN = rig
TRUST_UID_DOMAIN = True
DAEMON_LIST = MASTER COLLECTOR NEGOTIATOR SCHEDD STARTD
USE_SHARED_PORT = False
ALLOW_READ = *
ALLOW_WRITE = *
ALLOW_DAEMON = *
ALLOW_NEGOTIATOR = *
ALLOW_ADMINISTRATOR = root@*, condor@*
CONDOR_IDS = {ids}
SEC_DEFAULT_AUTHENTICATION = REQUIRED
SEC_READ_AUTHENTICATION = OPTIONAL
SEC_CLIENT_AUTHENTICATION = OPTIONAL
SEC_DEFAULT_AUTHENTICATION_METHODS = FS
NUM_CPUS = 4
MEMORY = 4096
SLOT_TYPE_1 = 100%
SLOT_TYPE_1_PARTITIONABLE = True
NUM_SLOTS_TYPE_1 = 1
NEGOTIATOR_INTERVAL = 2
NEGOTIATOR_MIN_INTERVAL = 1
NEGOTIATOR_CYCLE_DELAY = 1
SCHEDD_INTERVAL = 2
SCHEDD_MIN_INTERVAL = 1
UPDATE_INTERVAL = 5
CLAIM_WORKLIFE = 0
BASE_CGROUP =
START = True
SUSPEND = False
PREEMPT = False
KILL = False
SHADOW_WORKLIFE = 0
STARTER_INITIAL_UPDATE_INTERVAL = 1
MAIL = /bin/true
"""


class HTCondor:
    """Debian's HTCondor: one host that takes jobs and runs them; this machine can submit them.

    Args:
        folder: The rig's state folder.
    """

    name = "htcondor"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "htcondor"
        self._host = Host(self.folder / "host", folder / "users", NAME)
        self._root = self.folder / f"root-{_SUITE}"
        self._state = self.folder / "state"

    @property
    def configuration(self) -> Path:
        """condor_config."""
        return self.folder / "condor_config"

    @property
    def bin(self) -> Path:
        """The folder of its commands, for ``PATH``."""
        return self._root / "usr" / "bin"

    @property
    def environment(self) -> dict[str, str]:
        """What its commands need to find this pool, and to be found."""
        return {"CONDOR_CONFIG": str(self.configuration), "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin"}

    @property
    def hosts(self) -> Path:
        """An /etc/hosts that names its host."""
        return self._host.hosts

    @property
    def where(self) -> str:
        """How to use it, for a person."""
        return f"CONDOR_CONFIG={self.configuration} PATH={self.bin}:$PATH"

    @property
    def up(self) -> bool:
        """Whether it takes jobs."""
        return self._host.process is not None and self._ready()

    def start(self) -> None:
        """Bring the pool up, or find it up.

        Raises:
            RigError: Not root, its packages cannot be had, or a daemon does not come up (with the end of its log).
        """
        if self.up:
            return
        if os.geteuid() != 0:
            raise RigError("HTCondor for the tests needs root (run the same command with sudo)")
        packages.ensure(PACKAGES)
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        with locked(self.folder / "lock"):
            if self.up:
                return
            self._unpack()
            self._host.prepare()
            self._configure()
            shutil.rmtree(self._state, ignore_errors=True)
            for name in ("log", "spool", "execute", "lock", "run"):
                (self._state / name).mkdir(mode=0o755, parents=True)
            for path in (self._state, *self._state.iterdir()):
                os.chown(path, _ID, _ID)
            command = [str(self._root / "usr/sbin/condor_master"), "-f"]
            environment = {"CONDOR_CONFIG": str(self.configuration)}
            self._host.start(command, accounts=["condor"], environment=environment)
            self._wait()

    def knows(self, user: User) -> None:
        """Have a user be known by name there, until it is started again."""
        self._host.knows(user)

    def stop(self) -> None:
        """End all jobs and daemons. What was unpacked stays as a cache."""
        if self.folder.is_dir():
            with locked(self.folder / "lock"):
                self._host.stop()

    def remove(self, uid: int) -> None:
        """Take a user's jobs away, if the pool is up: processes that are just killed would be started again."""
        if self._host.process is not None:
            self._command("condor_rm", "-constraint", f'Owner == "hpcbinder-test-{uid}"')

    def _configure(self) -> None:
        libexec = next(
            path for path in (self._root / "usr/libexec/condor", self._root / "usr/lib/condor/libexec") if path.is_dir()
        )
        self.configuration.write_text(
            _CONFIGURATION.format(
                root=self._root,
                libexec=libexec,
                folder=self.folder,
                address=self._host.address,
                name=NAME,
                ids=f"{_ID}.{_ID}",
            )
        )

    def _wait(self) -> None:
        end = time.monotonic() + _SECONDS
        while not self._ready():
            if self._host.process is None or time.monotonic() > end:
                log = self._state / "log" / "MasterLog"
                words = self._host.last_words() + (log.read_text(errors="replace")[-2000:] if log.exists() else "")
                self._host.stop()
                raise RigError(f"HTCondor did not come up here; the end of its log:\n{words}")
            time.sleep(0.1)

    def _ready(self) -> bool:
        """Whether jobs can be submitted, and there is room for them."""
        return bool(self._command("condor_status", "-schedd", "-af", "Name")) and bool(
            self._command("condor_status", "-startd", "-af", "Name")
        )

    def _command(self, program: str, *arguments: str) -> str:
        """Ask as root, on its host: only there is an account that its commands want to see."""
        command = self._host.command([str(self.bin / program), *arguments])
        environment = {**self.environment, "LANG": "C.UTF-8"}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip()

    def _unpack(self) -> None:
        if self._root.is_dir():
            return
        partial = self._root.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o755)
        for package in self._packages():
            subprocess.run(["dpkg", "-x", str(package), str(partial)], check=True)
        shutil.rmtree(self.folder / "cache")
        for file in sorted(_elf(partial, (*_PROGRAMS, *_LIBRARIES))):
            self._point(file, partial)
        partial.rename(self._root)

    def _packages(self) -> list[Path]:
        """HTCondor and the libraries that it loads, from a list of sources of its own."""
        cache = self.folder / "cache"
        for part in ("lists/partial", "archives/partial", "download"):
            (cache / part).mkdir(parents=True, exist_ok=True)
        (cache / "suite.sources").write_text(
            f"Types: deb\nURIs: {mirror()}\nSuites: {_SUITE}\nComponents: main\n"
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        )
        options = {
            "Dir::Etc::SourceList": cache / "suite.sources",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": cache / "lists",
            "Dir::Cache": cache,
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
        }
        apt = ["apt-get", "-qq", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
        for arguments in (["update"], ["download", *(f"{name}/{_SUITE}" for name in _UNPACKED)]):
            done = subprocess.run([*apt, *arguments], cwd=cache / "download", capture_output=True, text=True)
            if done.returncode != 0:
                raise RigError(f"HTCondor cannot be had from Debian {_SUITE}:\n{done.stderr.strip()[-1000:]}")
        return sorted((cache / "download").glob("*.deb"))

    def _point(self, file: Path, tree: Path) -> None:
        """Have a program load the libraries of its own release, by the loader of that release."""
        libraries = [path.relative_to(tree) for path in (tree / "usr/lib").glob("*-linux-gnu*")]
        places = [*libraries, Path("usr/lib")]
        words = ["--force-rpath", "--set-rpath", ":".join(str(self._root / place) for place in places)]
        if ".so" not in file.name:
            (loader,) = (tree / "usr").glob("lib*/ld-linux-*.so.*")
            words += ["--set-interpreter", str(self._root / loader.relative_to(tree))]
        subprocess.run(["/usr/bin/patchelf", *words, str(file)], check=True, env={"PATH": PATH})


def _elf(tree: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        for path in tree.glob(pattern):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    if file.read(4) == b"\x7fELF":
                        yield path

"""Apptainer from Debian's unstable release, unpacked in a folder of the rig: nothing is installed over the system.

No Debian release carries Apptainer, unstable does. Its package is fetched by apt through a list of sources of its own
(so Debian's signatures are checked), compared with the pinned hash, unpacked, and its programs made to load with the
machine's glibc.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from . import fuse, glibc, packages
from .process import RigError, locked

PIN = Path(__file__).with_name("apptainer.json")
# What it runs: mounts of ordinary users go through the FUSE programs, builds through mksquashfs.
PACKAGES = (
    *("ca-certificates", "debian-archive-keyring", "e2fsprogs", "fuse-overlayfs", "fuse2fs", "fuse3", "libseccomp2"),
    *("squashfs-tools", "squashfuse", "uidmap"),
)
_MIRROR = "http://deb.debian.org/debian"
_PROGRAMS = ("usr/bin/apptainer", "usr/lib/*/apptainer/bin/*", "usr/lib/*/apptainer/lib/*.so")


class Apptainer:
    """Apptainer in a private root, for root and for ordinary users.

    Args:
        folder: The rig's state folder; ordinary users must be able to reach it.
    """

    name = "apptainer"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "apptainer"

    @property
    def bin(self) -> Path:
        """The folder to put in front of ``PATH``."""
        return self._folder / "bin"

    @property
    def path(self) -> Path:
        """The ``apptainer`` to run."""
        return self.bin / "apptainer"

    @property
    def where(self) -> str:
        """The program, for a person."""
        return str(self.path)

    @property
    def up(self) -> bool:
        """Whether it is unpacked, in the pinned version, and runs."""
        version, _ = _pin()
        return self._unpacked(version).is_dir() and self.path.exists() and fuse.usable() and _runs(self.path)

    def start(self) -> None:
        """Fetch, check and unpack it where that has not been done.

        Raises:
            RigError: no ``/dev/fuse``, not root where something is missing, or the package cannot be had.
        """
        if os.geteuid() != 0:
            if self.up:
                return
            raise RigError("setting up Apptainer for the tests needs root (run the same command with sudo)")
        packages.ensure(PACKAGES)
        fuse.ensure()
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        with locked(self._folder / "lock"):
            version, sha256 = _pin()
            unpacked = self._unpacked(version)
            if not unpacked.is_dir():
                self._unpack(self._package(version, sha256), unpacked)
            _grant_root(unpacked)
            self._wrap(unpacked)
        if not _runs(self.path):
            raise RigError(f"{self.path} does not run here:\n{_try(self.path).stderr.strip()}")

    def stop(self) -> None:
        """Nothing runs between uses; what was unpacked stays as a cache."""

    def _unpacked(self, version: str) -> Path:
        return self._folder / f"root-{version}"

    def _package(self, version: str, sha256: str) -> Path:
        given = os.environ.get("HPCBINDER_RIG_APPTAINER_DEB")
        if given:
            path = Path(given)
            if _sha256(path) != sha256 and not os.environ.get("HPCBINDER_RIG_APPTAINER_ANY"):
                raise RigError(f"{path} is not the pinned package (sha256 {sha256})")
            return path
        cache = self._folder / "cache"
        path = cache / f"apptainer_{version}_{_architecture()}.deb"
        if path.exists() and _sha256(path) == sha256:
            return path
        shutil.rmtree(cache / "download", ignore_errors=True)  # what an earlier run did not take
        for part in ("lists/partial", "archives/partial", "download"):
            (cache / part).mkdir(parents=True, exist_ok=True)
        (cache / "sid.sources").write_text(
            f"Types: deb\nURIs: {mirror()}\nSuites: sid\nComponents: main\n"
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        )
        apt = [
            *(
                "apt-get",
                "-qq",
                "-o",
                f"Dir::Etc::SourceList={cache / 'sid.sources'}",
                "-o",
                "Dir::Etc::SourceParts=/dev/null",
            ),
            *("-o", f"Dir::State::Lists={cache / 'lists'}", "-o", f"Dir::Cache={cache}"),
            *("-o", "Acquire::Languages=none", "-o", "APT::Sandbox::User=root"),
        ]
        newer = bool(os.environ.get("HPCBINDER_RIG_APPTAINER_ANY"))
        for arguments in (["update"], ["download", f"apptainer={version}"]):
            done = subprocess.run([*apt, *arguments], cwd=cache / "download", capture_output=True, text=True)
            if done.returncode != 0 and newer and arguments[0] == "download":
                arguments = ["download", "apptainer"]  # apt has checked whose it is
                done = subprocess.run([*apt, *arguments], cwd=cache / "download", capture_output=True, text=True)
            if done.returncode != 0:
                raise RigError(f"{self._moved_on(apt, version)}{done.stderr.strip()[-1000:]}")
        (fetched,) = (cache / "download").glob("apptainer_*.deb")
        if _sha256(fetched) != sha256 and not newer:
            raise RigError(
                f"apptainer {version} has sha256 {_sha256(fetched)} where {PIN.name} pins {sha256}: trust neither"
            )
        fetched.replace(path)
        shutil.rmtree(cache / "lists")  # 25 MB, and old tomorrow
        return path

    def _moved_on(self, apt: list[str], version: str) -> str:
        policy = subprocess.run(["apt-cache", *apt[2:], "policy", "apptainer"], capture_output=True, text=True).stdout
        candidate = policy.partition("Candidate:")[2].split("\n")[0].strip()
        if not candidate or candidate in ("(none)", version):
            return f"apptainer {version} could not be downloaded: "
        show = subprocess.run(["apt-cache", *apt[2:], "show", f"apptainer={candidate}"], capture_output=True, text=True)
        sha256 = show.stdout.partition("SHA256: ")[2].split("\n")[0]
        return (
            f"Debian's unstable release has apptainer {candidate} now, the rig pins {version}. "
            f"Put {candidate} and its sha256, {sha256}, into {PIN}, run the tests, commit; or set "
            "HPCBINDER_RIG_APPTAINER_DEB to a copy of the pinned package (it stays on snapshot.debian.org). "
        )

    def _unpack(self, package: Path, target: Path) -> None:
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o755)
        subprocess.run(["dpkg", "-x", str(package), str(partial)], check=True)
        if not glibc.machine_has((2, 38)):
            for pattern in _PROGRAMS:
                for program in partial.glob(pattern):
                    if program.read_bytes()[:4] == b"\x7fELF":
                        try:
                            glibc.adjust(program)
                        except glibc.NotAdjustable as error:
                            raise RigError(
                                f"this Apptainer needs a newer glibc than this machine has: {error}"
                            ) from error
        # A relocated Apptainer takes its prefix, and looks for these, from where its programs lie.
        (partial / "usr/etc").symlink_to("../etc")
        (partial / "usr/lib/etc").symlink_to("../../etc")
        (partial / "usr/lib/var").symlink_to("../../var")
        (partial / "var/lib/apptainer/mnt/session").mkdir(parents=True, exist_ok=True)
        partial.replace(target)
        for other in target.parent.glob("root-*"):
            if other != target:
                shutil.rmtree(other)

    def _wrap(self, unpacked: Path) -> None:
        """A short way in: helpers found as on a login node, and root told which capabilities it does not have."""
        lines = ["#!/bin/sh", 'export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"']
        missing = capabilities()[1]
        if missing:
            # The starter asks for every capability in root's name and ends when it does not get them all.
            lines.append(f'[ "$(id -u)" != 0 ] || export APPTAINER_DROP_CAPS={",".join(missing)}')
        lines.append(f'exec {shlex.quote(str(unpacked / "usr/bin/apptainer"))} "$@"')
        self.bin.mkdir(mode=0o755, exist_ok=True)
        _write(self.path, "\n".join([*lines, ""]), mode=0o755)


def _grant_root(unpacked: Path) -> None:
    """Give root what it really has: a root in a container or a small machine lacks some capability."""
    held, missing = capabilities()
    if not missing:
        return
    _write(unpacked / "etc/apptainer/capability.json", json.dumps({"users": {"root": held}}))
    settings = unpacked / "etc/apptainer/apptainer.conf"
    lines = [line for line in settings.read_text().splitlines() if not line.startswith("root default capabilities")]
    _write(settings, "\n".join([*lines, "root default capabilities = file", ""]))


def _write(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Put a text there at once, for somebody may be running the program that reads it."""
    if not path.exists() or path.read_text() != text:
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(text)
        partial.chmod(mode)
        partial.replace(path)


# linux/capability.h, by number
_NAMES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON"),
    *("BPF", "CHECKPOINT_RESTORE"),
)


def capabilities() -> tuple[list[str], list[str]]:
    """The capabilities this process may have, and those it may not."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapPrm:"))
    mask = int(line.split()[1], 16)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    known = [(f"CAP_{name}", bool(mask >> number & 1)) for number, name in enumerate(_NAMES) if number <= last]
    return [name for name, held in known if held], [name for name, held in known if not held]


def _architecture() -> str:
    return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()


def _pin() -> tuple[str, str]:
    pins = json.loads(PIN.read_text())
    architecture = _architecture() if shutil.which("dpkg") else "none"
    if architecture not in pins:
        raise RigError(f"{PIN.name} pins no apptainer package for {architecture}")
    return pins[architecture]["version"], pins[architecture]["sha256"]


def mirror() -> str:
    """The Debian mirror this machine is set to, for it is the one that is reached."""
    done = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
            "Component: main",
        ],
        capture_output=True,
        text=True,
    )
    uris = [line.rstrip("/") for line in done.stdout.split() if line.rstrip("/").endswith("/debian")]
    return uris[0] if uris else _MIRROR


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _try(program: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), "version"], capture_output=True, text=True)


def _runs(program: Path) -> bool:
    return _try(program).returncode == 0

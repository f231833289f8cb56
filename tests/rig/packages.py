"""Debian packages the rig is made of: what is missing is installed, and nothing is started by it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .process import RigError

POLICY = Path("/usr/sbin/policy-rc.d")
_OURS = "#!/bin/sh\n# Put here by hpcbinder's test rig while it installs packages; it may be removed.\nexit 101\n"


_LOCK = Path("/run/lock/hpcbinder-rig/machine.lock")
_held = 0


@contextlib.contextmanager
def machine() -> Iterator[None]:
    """Hold what is there once on a machine: its packages, and folders in /run that a daemon makes.

    Two sessions of tests, or two processes of one, change it one after the other; within one process it may be asked
    for again. An ordinary user changes nothing, and waits for nobody.
    """
    global _held
    if os.geteuid() != 0:
        yield
        return
    with contextlib.ExitStack() as stack:
        if not _held:
            _LOCK.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(_LOCK.open("a")), fcntl.LOCK_EX)
        _held += 1
        stack.callback(_release)
        yield


def _release() -> None:
    global _held
    _held -= 1


def installed(names: Sequence[str]) -> set[str]:
    """Which of these Debian packages are installed and configured."""
    if not shutil.which("dpkg-query"):
        raise RigError("the test rig is made of Debian packages and this machine has no dpkg")
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n", *names], capture_output=True, text=True
    )
    # dpkg-query(1): the second letter is the state, i for installed.
    return {line.split()[1] for line in done.stdout.splitlines() if line[1:3] == "i "}


def ensure(names: Sequence[str], *, optional: Sequence[str] = ()) -> list[str]:
    """Install the Debian packages that are missing: no recommended ones, no service started, no package removed.

    Args:
        names: Packages that must be there in the end.
        optional: Packages wanted where this Debian release has them (a release splits what another has in one).

    Returns:
        The packages that were installed now.

    Raises:
        RigError: not root, not Debian, or apt could not.
    """
    present = installed([*names, *optional])
    missing = [name for name in names if name not in present]
    wanted = [*missing, *(name for name in optional if name not in present and _candidate(name))]
    if not missing and not wanted:
        return []
    if os.geteuid() != 0:
        raise RigError(f"not installed: {' '.join(wanted)} (run as root: apt-get install {' '.join(wanted)})")
    with machine(), _no_services():
        done = _apt_install(wanted)
        if done.returncode != 0:
            # A fresh machine's package lists are empty or old.
            update = subprocess.run(["apt-get", "-qq", "update"], capture_output=True, text=True, env=_environment())
            wanted = [*missing, *(name for name in optional if name not in present and _candidate(name))]
            done = _apt_install(wanted)
            if done.returncode != 0:
                raise RigError(
                    f"apt-get could not install {' '.join(wanted)}:\n{(update.stderr + done.stderr).strip()[-2000:]}"
                )
    return wanted


def unpack(name: str, folder: Path) -> None:
    """Put the files of this Debian release's package into a folder, and install nothing.

    Args:
        name: Of the package.
        folder: Made for them.

    Raises:
        RigError: apt could not get it.
    """
    folder.mkdir(mode=0o755, parents=True)
    with tempfile.TemporaryDirectory(prefix="hpcbinder-rig-") as scratch, machine():
        download = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "--", name]
        done = subprocess.run(download, cwd=scratch, capture_output=True, text=True, env=_environment())
        if done.returncode != 0:
            subprocess.run(["apt-get", "-qq", "update"], capture_output=True, env=_environment())
            done = subprocess.run(download, cwd=scratch, capture_output=True, text=True, env=_environment())
        for package in Path(scratch).glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
    if done.returncode != 0:
        shutil.rmtree(folder)
        raise RigError(f"apt-get could not download {name}:\n{done.stderr.strip()[-2000:]}")


def _apt_install(names: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *("apt-get", "-qq", "-y", "--no-install-recommends", "--no-remove", "-o", "DPkg::Lock::Timeout=300"),
            *("install", "--", *names),
        ],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=_environment(),
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def _candidate(name: str) -> bool:
    done = subprocess.run(["apt-cache", "policy", "--", name], capture_output=True, text=True, env=_environment())
    return "Candidate: " in done.stdout and "Candidate: (none)" not in done.stdout


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Keep packages from starting their daemons (Debian's invoke-rc.d asks policy-rc.d; 101 forbids)."""
    ours = not POLICY.exists() or POLICY.read_text() == _OURS  # the latter: left by a rig that was killed
    if ours:
        POLICY.write_text(_OURS)
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)

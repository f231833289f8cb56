"""User namespaces, ranges of ids, FUSE: what everything without root stands on."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence

from hpcbinder.doctor.finding import Finding, Machine, Status, clean, read

_TRY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
uid = os.geteuid()
def step(name, result):
    if result != 0:
        sys.exit(f"{name}: {os.strerror(ctypes.get_errno())}")
step("unshare(CLONE_NEWUSER)", libc.unshare(0x10000000))
try:
    open("/proc/self/uid_map", "w").write(f"0 {uid} 1")
except OSError as error:
    sys.exit(f"uid_map: {error.strerror}")
step("unshare(CLONE_NEWNS)", libc.unshare(0x20000))
step("mount in it", libc.mount(b"none", b"/", None, 0x44000, None))
print("works")
"""
"""Makes a user namespace and a mount namespace in it, in a process that then ends. AppArmor lets one have the first
and not use it (Ubuntu 24.04)."""

_SYSCTLS = (
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "an AppArmor profile with `userns,` for the runtime, or sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)
"""File, the value that stands in the way, the administrator's way out."""
_RANGE = 65536
"""Ids that an image needs besides root's: Debian's `nobody` is 65534."""


def user_namespaces(machine: Machine) -> Sequence[Finding]:
    """Whether this person can really make one."""
    values = [(path, read(path), bad, way) for path, bad, way in _SYSCTLS]
    shown = ", ".join(f"{path.rpartition('/')[2]}={value.strip()}" for path, value, _, _ in values if value is not None)
    said = machine.ask(sys.executable, "-I", "-S", "-c", f"import sys\nsys.stderr = sys.stdout\n{_TRY}")
    if said is not None and said.strip() == "works":
        return [Finding("system", "user namespaces", Status.OK, clean(f"works; {shown}"))]
    ways = [way for _, value, bad, way in values if value is not None and value.strip() == bad]
    advice = f"ask an administrator for: {'; '.join(ways)}" if ways else "perhaps a container or a policy forbids them"
    return [Finding("system", "user namespaces", Status.PROBLEM, clean(f"cannot be made; {shown}"), advice)]


def id_ranges(machine: Machine) -> Sequence[Finding]:
    """Ranges of ids for rootless engines and mmdebstrap."""
    if os.geteuid() == 0:
        return [Finding("system", "subuid, subgid", Status.OK, "not needed: you are root")]
    name, uid = _account()
    findings = []
    for what, option in (("subuid", ()), ("subgid", ("-g",))):
        count = _count(read(f"/etc/{what}") or "", name, uid)
        if not count and machine.program("getsubids"):  # from LDAP, say
            said = machine.ask("getsubids", *option, name or str(uid)) or ""
            count = sum(int(words[3]) for line in said.splitlines() if len(words := line.split()) == 4)
        enough = count >= _RANGE
        advice = f"ask an administrator for `usermod --add-{what}s 100000-165535 {name or uid}`"
        found = f"{count} ids" if count else "none"
        findings.append(
            Finding("system", what, Status.OK if enough else Status.MISSING, found, "" if enough else advice)
        )
    return findings


def id_maps(machine: Machine) -> Sequence[Finding]:
    """The programs that may use those ranges."""
    findings = []
    for name in ("newuidmap", "newgidmap"):
        path = machine.program(name)
        if path is None:
            findings.append(
                Finding(
                    "system", name, Status.MISSING, "not on PATH", "needed without root: install the package uidmap"
                )
            )
        elif _privileged(path):
            findings.append(Finding("system", name, Status.OK, path))
        else:
            advice = f"ask an administrator for `chmod u+s {path}`"
            findings.append(Finding("system", name, Status.PROBLEM, f"{path} is not set-user-id root", advice))
    return findings


def fuse(machine: Machine) -> Sequence[Finding]:
    """FUSE, by which runtimes without set-user-id programs mount an image."""
    try:
        kind = os.stat("/dev/fuse").st_mode  # noqa: PTH116
    except OSError:
        device = Finding("system", "/dev/fuse", Status.MISSING, "not there", "modprobe fuse, as root")
    else:
        if stat.S_ISCHR(kind) and os.access("/dev/fuse", os.R_OK | os.W_OK):
            device = Finding("system", "/dev/fuse", Status.OK, f"mode {stat.S_IMODE(kind):04o}")
        else:
            found = f"mode {stat.S_IMODE(kind):04o}: not for you"
            device = Finding("system", "/dev/fuse", Status.PROBLEM, found, "chmod 0666 /dev/fuse, as root")
    findings = [device]
    for name, package in (("squashfuse", "squashfuse"), ("fuse2fs", "fuse2fs"), ("fuse-overlayfs", "fuse-overlayfs")):
        path = machine.program("squashfuse_ll") if name == "squashfuse" else None
        path = path or machine.program(name)
        advice = (
            "" if path else f"Apptainer without its set-user-id part wants it, if it brings none: apt install {package}"
        )
        findings.append(Finding("system", name, Status.OK if path else Status.MISSING, path or "not on PATH", advice))
    return findings


def can_map(findings: Sequence[Finding]) -> bool:
    """Whether rootless building can work, by what was found above."""
    needed = {"user namespaces", "subuid, subgid", "subuid", "subgid"}
    if os.geteuid() != 0:
        needed |= {"newuidmap", "newgidmap"}
    return all(finding.status is Status.OK for finding in findings if finding.name in needed)


def _account() -> tuple[str | None, int]:
    import pwd

    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name, uid
    except KeyError:
        return None, uid


def _count(text: str, name: str | None, uid: int) -> int:
    """Ids of a person in the text of subuid(5)."""
    total = 0
    for line in text.splitlines():
        who, _, rest = line.strip().partition(":")
        _, _, number = rest.partition(":")
        if who in (name, str(uid)) and number.isdecimal():
            total += int(number)
    return total


def _privileged(path: str) -> bool:
    try:
        about = os.stat(path)  # noqa: PTH116
        if about.st_uid == 0 and about.st_mode & stat.S_ISUID:
            return True
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False

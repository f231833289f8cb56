"""squashfs on this machine: what its kernel mounts, what images made here are compressed with, tools to look."""

from __future__ import annotations

from collections.abc import Sequence

from hpcbinder.doctor.finding import Finding, Machine, Status, clean
from hpcbinder.runtime import choose_compression
from hpcbinder.runtime import kernel_squashfs as ask_kernel


def kernel_squashfs(machine: Machine) -> Sequence[Finding]:
    """Whether the kernel mounts squashfs, and which compressors it was built with."""
    kernel = ask_kernel()
    release = clean(kernel.release)
    if kernel.loaded:
        module = Finding("system", "squashfs in the kernel", Status.OK, f"Linux {release}")
    elif kernel.module:
        module = Finding("system", "squashfs in the kernel", Status.OK, "a module, which root loads when it is wanted")
    else:
        advice = "only what mounts with FUSE (squashfuse) can run images here"
        module = Finding("system", "squashfs in the kernel", Status.MISSING, f"Linux {release}", advice)
    if kernel.compressors is None:
        found = f"no /proc/config.gz, /boot/config-{release} or /lib/modules/{release}/config to tell"
        return [module, Finding("system", "squashfs compressors", Status.UNKNOWN, found)]
    wanted = machine.config.build.compression.partition(":")[0]
    if wanted == "auto" or wanted in kernel.compressors:
        return [module, Finding("system", "squashfs compressors", Status.OK, " ".join(kernel.compressors))]
    advice = f"images compressed with {wanted} (build.compression) only run with FUSE here"
    known = " ".join(kernel.compressors) or "none"
    return [module, Finding("system", "squashfs compressors", Status.PROBLEM, known, advice)]


def compression(machine: Machine) -> Sequence[Finding]:
    """What images made here are compressed with."""
    chosen = choose_compression(machine.config.build.compression, machine.config, environ=machine.environ)
    return [Finding("system", "compression", Status.OK, clean(f"{chosen.name}: {chosen.why}"))]


def squashfs_tools(machine: Machine) -> Sequence[Finding]:
    """Tools to look into images by hand. hpcbinder itself needs none."""
    findings = []
    for name in ("unsquashfs", "mksquashfs"):
        path = machine.program(name)
        advice = "" if path else "not needed; to look into images by hand: apt install squashfs-tools"
        findings.append(Finding("tools", name, Status.OK if path else Status.MISSING, path or "not on PATH", advice))
    return findings

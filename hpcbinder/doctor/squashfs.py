"""What the kernel itself knows of squashfs: what a set-user-id Apptainer, Shifter and Sarus mount images with."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Sequence

from hpcbinder.doctor.finding import Finding, Machine, Status, clean, read

_OPTIONS = {"gzip": "ZLIB", "zstd": "ZSTD", "lz4": "LZ4", "xz": "XZ", "lzo": "LZO"}
"""Compressor -> its word in the kernel's options (fs/squashfs/Kconfig: CONFIG_SQUASHFS_ZLIB …)."""


def kernel_squashfs(machine: Machine) -> Sequence[Finding]:
    """Whether the kernel mounts squashfs, and which compressors it was built with."""
    release = os.uname().release
    options = _kernel_options(release)
    if "\tsquashfs\n" in (read("/proc/filesystems") or ""):
        module = Finding("system", "squashfs in the kernel", Status.OK, f"Linux {clean(release)}")
    elif options.get("SQUASHFS") == "m" or "/squashfs.ko" in (read(f"/lib/modules/{release}/modules.dep") or ""):
        module = Finding("system", "squashfs in the kernel", Status.OK, "a module, which root loads when it is wanted")
    else:
        advice = "only what mounts with FUSE (squashfuse) can run images here"
        module = Finding("system", "squashfs in the kernel", Status.MISSING, f"Linux {clean(release)}", advice)
    known = sorted(name for name, word in _OPTIONS.items() if options.get(f"SQUASHFS_{word}") == "y")
    if not options:
        found = f"no /proc/config.gz, /boot/config-{clean(release)} or /lib/modules/{clean(release)}/config to tell"
        return [module, Finding("system", "squashfs compressors", Status.UNKNOWN, found)]
    wanted = machine.config.build.compression.partition(":")[0]
    if wanted in known:
        return [module, Finding("system", "squashfs compressors", Status.OK, " ".join(known))]
    advice = f"images compressed with {wanted} (build.compression) only run with FUSE here"
    return [module, Finding("system", "squashfs compressors", Status.PROBLEM, " ".join(known) or "none", advice)]


def squashfs_tools(machine: Machine) -> Sequence[Finding]:
    """Tools to look into images by hand. hpcbinder itself needs none."""
    findings = []
    for name in ("unsquashfs", "mksquashfs"):
        path = machine.program(name)
        advice = "" if path else "not needed; to look into images by hand: apt install squashfs-tools"
        findings.append(Finding("tools", name, Status.OK if path else Status.MISSING, path or "not on PATH", advice))
    return findings


def _kernel_options(release: str) -> dict[str, str]:
    """Option without `CONFIG_` -> `y` or `m`; {} where the kernel's configuration is nowhere to be read."""
    text = None
    try:
        with gzip.open("/proc/config.gz", "rt", encoding="utf-8", errors="replace") as file:
            text = file.read(4 << 20)
    except (OSError, EOFError):
        for path in (f"/boot/config-{release}", f"/lib/modules/{release}/config"):
            try:
                with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                    text = file.read(4 << 20)
                    break
            except OSError:
                continue
    return dict(re.findall(r"^CONFIG_(SQUASHFS\w*)=([ym])$", text or "", re.MULTILINE))

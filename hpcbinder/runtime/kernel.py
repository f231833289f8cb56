"""What the kernel itself knows of squashfs: what a set-user-id Apptainer, Shifter and Sarus mount images with."""

from __future__ import annotations

import gzip
import os
import re
from dataclasses import dataclass

_OPTIONS = {"gzip": "ZLIB", "zstd": "ZSTD", "lz4": "LZ4", "xz": "XZ", "lzo": "LZO"}
"""Compressor -> its word in the kernel's options (fs/squashfs/Kconfig: CONFIG_SQUASHFS_ZLIB …)."""
_LIMIT = 4 << 20


@dataclass(frozen=True)
class KernelSquashfs:
    """What is known of this machine's kernel.

    Attributes:
        release: As uname(2) has it.
        loaded: It mounts squashfs now.
        module: It has a module for squashfs.
        compressors: Those it was built with, sorted; None where its configuration is nowhere to be read.
    """

    release: str
    loaded: bool
    module: bool
    compressors: tuple[str, ...] | None


def kernel_squashfs() -> KernelSquashfs:
    """Ask this machine's kernel; reads two or three files."""
    release = os.uname().release
    options = _options(release)
    return KernelSquashfs(
        release=release,
        loaded="\tsquashfs\n" in _text("/proc/filesystems"),
        module=options.get("SQUASHFS") == "m" or "/squashfs.ko" in _text(f"/lib/modules/{release}/modules.dep"),
        compressors=tuple(sorted(name for name, word in _OPTIONS.items() if options.get(f"SQUASHFS_{word}") == "y"))
        if options
        else None,
    )


def _options(release: str) -> dict[str, str]:
    """Option without `CONFIG_` -> `y` or `m`; {} where the kernel's configuration is nowhere to be read."""
    text = ""
    try:
        with gzip.open("/proc/config.gz", "rt", encoding="utf-8", errors="replace") as file:
            text = file.read(_LIMIT)
    except (OSError, EOFError):
        for path in (f"/boot/config-{release}", f"/lib/modules/{release}/config"):
            if text := _text(path):
                break
    return dict(re.findall(r"^CONFIG_(SQUASHFS\w*)=([ym])$", text, re.MULTILINE))


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (/proc and /boot by name)
            return file.read(_LIMIT)
    except OSError:
        return ""

"""Which GPU the machine has that a command is about to run on, and whether it does for the image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

NAMES = {"nvidia": "NVIDIA", "rocm": "AMD"}

MINIMUM = {"13": "580.65.06", "12": "525.60.13", "11": "450.80.02", "10": "410.48"}
"""Major version of CUDA -> the oldest Linux driver that runs its programs (CUDA Toolkit release notes, "CUDA minor
version compatibility"; of 10 that of 10.0)."""

_VERSION = Path("/proc/driver/nvidia/version")


def resolve(wanted: str, devices: Path = Path("/dev")) -> str:
    """Turn `auto` into nvidia, rocm or none by the device files that are there; anything else is the answer itself.

    Asked when the command starts, not when a kernel is registered: login nodes rarely have what compute nodes have.
    """
    if wanted != "auto":
        return wanted
    if (devices / "nvidiactl").exists() or (devices / "nvidia0").exists():
        return "nvidia"
    return "rocm" if (devices / "kfd").exists() else "none"


def nvidia_driver(file: Path = _VERSION) -> str:
    """Version of the NVIDIA driver that the kernel has loaded, "" if it has none.

    The file's first line is `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat …`, or, of the open one,
    `… Open Kernel Module for x86_64  550.54.14  Release Build …`.
    """
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            first = opened.readline(500)
    except OSError:
        return ""
    found = re.search(r"Kernel Module\D*?(?:x86_64|aarch64)?\s+(\d{3,4}\.\d{1,4}(?:\.\d{1,4})?)\b", first)
    return found[1] if found else ""


def too_old(driver: str, cuda: str) -> str:
    """The driver that programs of a CUDA version need at least, if this one is older; else "", also of what is unknown.

    Args:
        driver: As `nvidia_driver` has it.
        cuda: `12` or `12.4`.
    """
    least = MINIMUM.get(cuda.partition(".")[0], "")
    return least if driver and least and _numbers(driver) < _numbers(least) else ""


def cuda_of_driver(driver: str) -> str:
    """The newest major version of CUDA whose programs a driver runs, "" if it is too old for all that are known."""
    return next((cuda for cuda in MINIMUM if not too_old(driver, cuda)), "")


def shortcoming(needs: Mapping[str, str], gpu: str, driver: str | None = None) -> str:
    """What an image lacks of the machine, "" if nothing. It is run all the same: much works without.

    Args:
        needs: `gpu` (nvidia, rocm) and `cuda` (a version), as far as they are known.
        gpu: What it gets: nvidia, rocm or none.
        driver: NVIDIA's, None to look.
    """
    wanted = needs.get("gpu", "")
    if wanted not in NAMES:
        return ""
    cuda = needs.get("cuda", "")
    made_for = f"the image's packages are made for {'CUDA ' + cuda if cuda else NAMES[wanted] + ' GPUs'}"
    if gpu != wanted:
        return f"{made_for}, and it gets no {NAMES[wanted]} GPU here: what needs one fails"
    found = nvidia_driver() if driver is None else driver
    if wanted == "nvidia" and (least := too_old(found, cuda)):
        return f"{made_for}, which needs the NVIDIA driver {least} or later: here is {found}"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))

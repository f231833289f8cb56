"""Which GPU the machine has that a command is about to run on."""

from __future__ import annotations

from pathlib import Path


def resolve(wanted: str, devices: Path = Path("/dev")) -> str:
    """Turn `auto` into nvidia, rocm or none by the device files that are there; anything else is the answer itself.

    Asked when the command starts, not when a kernel is registered: login nodes rarely have what compute nodes have.
    """
    if wanted != "auto":
        return wanted
    if (devices / "nvidiactl").exists() or (devices / "nvidia0").exists():
        return "nvidia"
    return "rocm" if (devices / "kfd").exists() else "none"

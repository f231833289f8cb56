"""Times and amounts as Slurm's commands take them, as numbers that can be compared."""

from __future__ import annotations

import re

_UNITS = {"": 1, "K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}


def seconds(text: str) -> float:
    """How long a time of sbatch(1), `--time`, is.

    Args:
        text: MINUTES, MM:SS, H:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS.

    Returns:
        Seconds; infinity for 0 and UNLIMITED, which set no limit.

    Raises:
        ValueError: It is no time.
    """
    if text.upper() in ("UNLIMITED", "INFINITE"):
        return float("inf")
    days, dash, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if dash:
        hours, minutes, rest = [*parts, 0, 0][:3]
    elif len(parts) == 1:
        hours, minutes, rest = 0, parts[0], 0
    else:
        hours, minutes, rest = [0, *parts][-3:]
    total = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest
    return total or float("inf")


def mebibytes(text: str) -> float:
    """How much a memory size of sbatch(1), `--mem`, is.

    Args:
        text: A number, of MiB or with one of K, M, G and T.

    Returns:
        MiB; infinity for 0, which asks for all that a node has.

    Raises:
        ValueError: It is no size.
    """
    match = re.fullmatch(r"([0-9]+)([KMGT]?)", text.upper(), re.ASCII)
    if match is None:
        raise ValueError(f"not a memory size: {text[:80]!r}")
    return int(match[1]) * _UNITS[match[2]] or float("inf")


def gpu_count(text: str) -> int:
    """How many GPUs `[TYPE:]NUMBER` are, 0 for an empty one."""
    return int(text.rpartition(":")[2] or 0)

"""How Python looks after memory while a tree of many objects grows."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""glibc's malloc.h."""
_KEPT = 16 << 20
_MAPPED = 16 << 20
_ARENAS = 2
"""What a thread frees stays in its arena. Nearly all is asked for by Python, one thread at a time: with more of them
nobody would wait less."""


@contextmanager
def no_cycles() -> Iterator[None]:
    """Keep Python's collector of cycles from looking at a growing tree again and again: a tree has none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def keep_freed() -> None:
    """Have the C library keep up to 16 MiB of what is freed for what is asked for next, in two places for all threads.

    Else each chunk of a stream goes back to the kernel, and the next one gets new pages, which the kernel clears first;
    and with eight places for each core, as it would have by itself, each would keep that much. Holds for the process
    from now on, if few threads have asked for memory so far; without glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_TRIM_THRESHOLD, _KEPT)
    mallopt(_MMAP_THRESHOLD, _MAPPED)
    mallopt(_ARENA_MAX, _ARENAS)

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
nobody would wait less. With as few as that, what lives long lies between what does not, and a little more is taken:
for one layer at a time, which few threads write, it does not pay."""


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
    """Have the C library keep up to 16 MiB of what a thread frees for what it asks for next.

    Else each chunk of a stream goes back to the kernel, and the next one gets new pages, which the kernel clears first.
    Holds for the process from now on; without glibc nothing happens.
    """
    _tell((_TRIM_THRESHOLD, _KEPT), (_MMAP_THRESHOLD, _MAPPED))


def share_freed() -> None:
    """Have all threads share what is freed, in two places: for a process of many threads that write layers.

    glibc would have eight places for each core, and `keep_freed` keep that much in each. Holds for the process from now
    on, if few threads have asked for memory so far.
    """
    _tell((_ARENA_MAX, _ARENAS))


def _tell(*settings: tuple[int, int]) -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for name, value in settings:
        mallopt(name, value)

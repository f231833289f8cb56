"""Pipes between a process and those that it forks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def pipes(count: int) -> Iterator[list[int]]:
    """So many pipes, each its end to read from and its end to write to; closed if the body fails (fork(2), EAGAIN)."""
    ends: list[int] = []
    try:
        for _ in range(count):
            ends += os.pipe()
        yield ends
    except BaseException:
        for end in ends:
            os.close(end)
        raise

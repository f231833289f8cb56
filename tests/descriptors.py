"""What this process has open: code that runs for weeks must close what it fails with."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def descriptors() -> dict[str, str]:
    """Number -> what it leads to."""
    gc.collect()
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = os.readlink(entry)  # noqa: PTH115 - its text
        except FileNotFoundError:
            continue  # of the listing itself
        except OSError:
            found[entry.name] = "what is too deep for a path"
    return found


@contextmanager
def none_left() -> Iterator[None]:
    """Nothing that the body opens is open afterwards."""
    before = descriptors()
    yield
    left = {number: path for number, path in descriptors().items() if before.get(number) != path}
    assert not left

"""Files and folders that others may read, whatever the umask, and that are on disk once they are named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hpcbinder.catalog import make_folder, sync_folder

__all__ = ["make_folder", "new_file", "sync_folder"]


@contextmanager
def new_file(path: Path, mode: int) -> Iterator[BinaryIO]:
    """A new file of that mode, whatever the umask, on disk when the block ends."""
    with path.open("x+b") as out:
        yield out
        out.flush()
        os.fchmod(out.fileno(), mode)
        os.fsync(out.fileno())

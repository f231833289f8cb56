"""Files and folders that others may read, whatever the umask, and that are on disk once they are named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def new_file(path: Path, mode: int) -> Iterator[BinaryIO]:
    """A new file of that mode, whatever the umask, on disk when the block ends."""
    with path.open("x+b") as out:
        yield out
        out.flush()
        os.fchmod(out.fileno(), mode)
        os.fsync(out.fileno())


def make_folder(path: Path) -> None:
    """A folder that others may read; one that exists is left as it is."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return
    path.chmod(0o755)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder outlive a crash of the machine, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)

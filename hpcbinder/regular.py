"""Opening what somebody else has made: a pipe would hold us, a device has no end, a folder is no file."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO


def open_regular(path: str | os.PathLike[str], *, follow: bool = False) -> BinaryIO | None:
    """Open a regular file for reading.

    Args:
        follow: Also where a link stands in its place.

    Returns:
        None for anything else that is there.

    Raises:
        OSError: It is not there, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    # `os.fdopen` would refuse a folder, and leave the descriptor open.
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    return None

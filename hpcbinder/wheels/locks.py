"""Keeping two processes from doing the same work; without locks nothing would break."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path


class Lock:
    """A lock on a file, which goes with the process, however that ends.

    Args:
        path: The file; made if it is not there.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Whoever can open the file, if only to read it, can hold the lock.
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except PermissionError:
            if not path.exists():
                raise
            self._file = -1  # another user's: the two of us may do the same work

    def take(self, *, wait: bool) -> bool:
        """Be the only one who holds it; False if another does and `wait` is not asked for."""
        if self._file < 0:
            return True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise  # a file system without locks costs work done twice, no more
        return True

    def release(self, *, done: bool) -> None:
        """Let others have it; a second time does nothing. Who waits for work that is done finds that, and the file
        is not needed."""
        if self._file < 0:
            return
        if done:
            self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = -1

"""How much of a file lies where another file's data lies too: what a reflink, or a copy within XFS or btrfs, saves.

Linux, include/uapi/linux/fiemap.h and Documentation/filesystems/fiemap.rst.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

_FIEMAP = 0xC020660B
_SHARED, _LAST = 0x2000, 0x1
_HEAD, _EXTENT = struct.Struct("=QQIIII"), struct.Struct("=QQQQQIIII")
_AT_ONCE = 512
_MOST = 1 << 20
"""Extents of a file that are looked at."""


def shared_bytes(path: Path) -> int | None:
    """Bytes of a file that it shares with others, or with itself; None where the file system does not tell."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        total, start = 0, 0
        for _ in range(0, _MOST, _AT_ONCE):
            request = bytearray(_HEAD.size + _AT_ONCE * _EXTENT.size)
            _HEAD.pack_into(request, 0, start, (1 << 64) - 1 - start, 0, 0, _AT_ONCE, 0)
            fcntl.ioctl(descriptor, _FIEMAP, request)
            count = _HEAD.unpack_from(request)[3]
            for number in range(min(count, _AT_ONCE)):
                logical, _, length, _, _, flags, *_ = _EXTENT.unpack_from(request, _HEAD.size + number * _EXTENT.size)
                total += length if flags & _SHARED else 0
                start = logical + length
                if flags & _LAST:
                    return total
            if not count:
                return total
        return total
    except OSError:
        return None
    finally:
        os.close(descriptor)

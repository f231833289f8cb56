"""``/dev/fuse``: by it ordinary users mount images."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .process import RigError

_DEVICE = Path("/dev/fuse")


def usable() -> bool:
    """Whether ordinary users can open the device."""
    return _DEVICE.exists() and _DEVICE.stat().st_mode & 0o006 == 0o006


def ensure() -> None:
    """Let ordinary users open the device.

    udev gives it mode 0666 on every ordinary machine (50-udev-default.rules); a small virtual machine or a container
    has no udev, and the mode it was made with. There the same is done, and said, and left so.

    Raises:
        RigError: there is no such device, or it is closed and this is not root.
    """
    if usable():
        return
    if not _DEVICE.exists():
        raise RigError("this machine has no /dev/fuse, by which ordinary users mount images (root: modprobe fuse)")
    if os.geteuid() != 0:
        raise RigError("/dev/fuse is closed to ordinary users (root: chmod 0666 /dev/fuse)")
    _DEVICE.chmod(0o666)
    print("rig: /dev/fuse was closed to ordinary users, its mode is 0666 now, as udev has it", file=sys.stderr)

"""Where in a file the squashfs is."""

from __future__ import annotations

from pathlib import Path

from hpcbinder.errors import ConvertError
from hpcbinder.sif import is_sif, primary_partition
from hpcbinder.squashfs import Image, is_squashfs


def open_image(path: Path) -> Image:
    """Open the root file system of a SIF, or a squashfs image; a context manager.

    Raises:
        ConvertError: There is none that can be read.
    """
    return Image.open(path, offset=squashfs_offset(path))


def squashfs_offset(path: Path) -> int:
    """Where the squashfs begins: in a SIF its primary partition, else the file's start.

    Raises:
        ConvertError: It cannot be read, is neither, or a SIF has none.
    """
    if looks_like_sif(path):
        return primary_partition(path)[0]
    if not is_squashfs(path):
        raise ConvertError("is neither a SIF nor a squashfs image", where=str(path))
    return 0


def looks_like_sif(path: Path) -> bool:
    """Whether a file says that it is a SIF.

    Raises:
        ConvertError: It cannot be read.
    """
    if not path.is_file():
        # A pipe would be waited for, a device read without end.
        raise ConvertError("is no ordinary file" if path.exists() else "is not there", where=str(path))
    return is_sif(path)

"""What tells one image from another, without reading all of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import superblock


def is_squashfs(path: Path) -> bool:
    """Whether a file says that it is a squashfs image.

    Raises:
        ConvertError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(4) == superblock.MAGIC.to_bytes(4, "little")
    except OSError as error:
        raise ConvertError(f"cannot be read: {error.strerror}", where=str(path)) from error


def tables_digest(path: Path, offset: int = 0) -> bytes:
    """SHA-256 of an image's tables: every name, mode, owner and time, and the size and place of every block.

    Args:
        path: File that holds the image.
        offset: Where in it the image begins, bytes.

    Raises:
        ConvertError: It cannot be read, or is no image.
    """
    try:
        with path.open("rb") as file:
            available = file.seek(0, 2) - offset
            file.seek(offset)
            block = superblock.parse(file.read(superblock.SIZE), available)
            file.seek(offset + block.inode_table)
            return hashlib.sha256(file.read(block.bytes_used - block.inode_table)).digest()
    except OSError as error:
        raise ConvertError(f"cannot be read: {error.strerror}", where=str(path)) from error


def tables_uuid(path: Path, offset: int = 0) -> bytes:
    """The 16 bytes of a UUID that follows from an image's tables (RFC 9562, version 8): the same whichever engine built
    the image.

    Args:
        path: File that holds the image.
        offset: Where in it the image begins, bytes.

    Raises:
        ConvertError: It cannot be read, or is no image.
    """
    raw = bytearray(tables_digest(path, offset)[:16])
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)

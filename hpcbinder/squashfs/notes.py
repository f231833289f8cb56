"""What a layer's tar says that a squashfs image cannot: kept in entries of the layer that `merge` reads and removes.

Their names begin with `.wh.`, so that whoever applies whiteouts drops them.
"""

from __future__ import annotations

from collections.abc import Iterable

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs.directories import MAX_NAME

IMPLIED = b".wh..wh.implied"
"""In a directory that the tar puts something into but has no member for: the one below keeps its mode and owner."""
LINKS = b".wh..wh.links"
"""In the root: hard links whose other name is in a layer below."""
NAMES = frozenset((IMPLIED, LINKS))
"""A layer's tar must not have them."""
MAX_SIZE = 64 << 20
"""Bytes of the list of hard links."""


def pack_links(links: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The list's content.

    Args:
        links: (path, path of the other name), both from the root, without `.` or `..`.
    """
    return b"\0".join(part for link in links for part in link)


def unpack_links(content: bytes) -> list[tuple[bytes, bytes]]:
    """The hard links again, in their order.

    Raises:
        ConvertError: It is not what `pack_links` makes.
    """
    fields = content.split(b"\0")
    if len(fields) % 2 or not all(map(_is_plain, fields)):
        raise ConvertError("damaged layer: its list of hard links cannot be read")
    return list(zip(fields[::2], fields[1::2], strict=True))


def _is_plain(path: bytes) -> bool:
    return all(part not in (b"", b".", b"..") and len(part) <= MAX_NAME for part in path.split(b"/"))

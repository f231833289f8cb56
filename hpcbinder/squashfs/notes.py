"""What a layer's tar says that a squashfs image cannot: kept in entries of the layer that `merge` reads and removes.

Their names begin with `.wh.`, so that whoever applies whiteouts drops them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs.directories import MAX_NAME
from hpcbinder.squashfs.tree import Data

IMPLIED = b".wh..wh.implied"
"""In a directory that the tar puts something into but has no member for: the one below keeps its mode and owner."""
LINKS = b".wh..wh.links"
"""In the root: hard links whose other name is in a layer below."""
TAILS = b".wh..wh.tails"
"""In the root: the SHA-256 of each piece of the fragment blocks, so that layers can share what is the same."""
NAMES = frozenset((IMPLIED, LINKS, TAILS))
"""A layer's tar must not have them."""
MAX_SIZE = 64 << 20
"""Bytes of one list."""
_PLACE = struct.Struct("<II")
_DIGEST = 32


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


def pack_tails(tails: Mapping[bytes, Data]) -> bytes:
    """The list's content: where they are (fragment block and offset, each u32 little-endian), and then their digests.

    Args:
        tails: SHA-256 -> where a piece with it is.

    Returns:
        It; empty if it would be too long.
    """
    if len(tails) * (_PLACE.size + _DIGEST) > MAX_SIZE:
        return b""
    content = bytearray(len(tails) * _PLACE.size)
    for number, data in enumerate(tails.values()):
        _PLACE.pack_into(content, number * _PLACE.size, data.fragment, data.offset)
    return b"".join((content, *tails))


def unpack_tails(content: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    """(fragment block, offset) and SHA-256 of each tail, one at a time: there may be a million.

    Raises:
        ConvertError: It is not what `pack_tails` makes.
    """
    count, rest = divmod(len(content), _PLACE.size + _DIGEST)
    if rest:
        raise ConvertError("damaged layer: its list of tails cannot be read")
    begin = count * _PLACE.size
    digests = (content[at : at + _DIGEST] for at in range(begin, len(content), _DIGEST))
    return zip(_PLACE.iter_unpack(memoryview(content)[:begin]), digests, strict=True)


def _is_plain(path: bytes) -> bool:
    return all(part not in (b"", b".", b"..") and len(part) <= MAX_NAME for part in path.split(b"/"))

"""What a layer's tar says that a squashfs image cannot: kept in one file of the layer, read and removed by `merge`.

A tar may name a hard link whose other name is in a layer below, and may leave out a directory it puts a file into, in
which case the directory below keeps its mode and owner. The file's name begins with `.wh.`, so that whoever applies
whiteouts drops it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from hpcbinder.errors import ConvertError

NAME = b".wh..wh.hpcbinder"
"""In the layer's root. A layer's tar must not have it."""
MAX_SIZE = 64 << 20
_HEADING = b"hpcbinder layer notes 1"


class Notes(NamedTuple):
    """The notes of one layer; paths are relative to the root, without `.` or `..`.

    Attributes:
        links: (path, path of the other name, in this layer or one below), in the tar's order.
        implied: Directories the tar has no member for.
    """

    links: tuple[tuple[bytes, bytes], ...] = ()
    implied: frozenset[bytes] = frozenset()


def pack(links: Iterable[tuple[bytes, bytes]], implied: Iterable[bytes]) -> bytes:
    """The file's content; empty if there is nothing to say."""
    fields = []
    for path, target in links:
        fields += [b"link", path, target]
    for path in sorted(implied):
        fields += [b"implied", path]
    return b"\0".join([_HEADING, *fields]) if fields else b""


def unpack(content: bytes) -> Notes:
    """Read the file's content.

    Raises:
        ConvertError: It is none that we wrote.
    """
    heading, *fields = content.split(b"\0")
    links: list[tuple[bytes, bytes]] = []
    implied: list[bytes] = []
    position = 0
    while position < len(fields):
        kind = fields[position]
        width = 3 if kind == b"link" else 2
        record = fields[position + 1 : position + width]
        if kind not in (b"link", b"implied") or len(record) != width - 1 or not all(map(is_plain, record)):
            break
        position += width
        if kind == b"link":
            links.append((record[0], record[1]))
        else:
            implied.append(record[0])
    if heading != _HEADING or position != len(fields):
        raise ConvertError("damaged layer: its notes cannot be read")
    return Notes(tuple(links), frozenset(implied))


def is_plain(path: bytes) -> bool:
    """True for a relative path without empty, `.` or `..` components."""
    return not any(part in (b"", b".", b"..") for part in path.split(b"/"))

"""Extended attributes (format.adoc, "Xattr Table"; Linux, fs/squashfs/xattr.c).

Sets of attributes are numbered; an inode has the number of its set. A set is a run of keys and values in metadata
blocks; equal sets are stored once. Of a value that several sets have, writers may store a reference instead.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import metadata, tables
from hpcbinder.squashfs.compressors import Compressor
from hpcbinder.squashfs.metadata import Metadata, MetadataWriter

Xattrs = tuple[tuple[bytes, bytes], ...]
"""Full names (`user.origin`) and values."""

NO_XATTRS = 0xFFFFFFFF
"""The number of a set that is not there."""

_HEADER = struct.Struct("<QII")
_SET = struct.Struct("<QII")
_KEY = struct.Struct("<HH")
_LENGTH = struct.Struct("<I")
_REFERENCE = struct.Struct("<Q")
_PREFIXES = (b"user.", b"trusted.", b"security.")
_ELSEWHERE = 0x100
_MAX_NAME, _MAX_VALUE = 255, 65536
"""Linux, include/uapi/linux/limits.h."""
_OF_OVERLAYS = (b"user.overlay.", b"user.fuseoverlayfs.", b"user.containers.", b"user.rootlesscontainers")
_DAMAGED = "damaged squashfs image: its extended attributes"


def kept(attributes: Xattrs) -> Xattrs:
    """Those that an image of ours has, in one order: `user.*`.

    Others mean nothing, or too much, to a runtime without privileges. Nor is what overlay file systems and engines
    note for themselves part of an image: an overlay mounted over it would take it for its own.
    """
    return tuple(
        sorted((name, value) for name, value in attributes if name.startswith(b"user.") and storable(name, value))
    )


def storable(name: bytes, value: bytes) -> bool:
    """Whether Linux has room for such an attribute, and it is nobody's private note."""
    return 5 < len(name) <= _MAX_NAME and len(value) <= _MAX_VALUE and not name.startswith(_OF_OVERLAYS)


class XattrWriter:
    """Numbers sets of attributes and packs them.

    Args:
        compressor: The image's.
    """

    def __init__(self, compressor: Compressor) -> None:
        self._compressor = compressor
        self._pairs = MetadataWriter(compressor)
        self._sets = bytearray()
        self._numbers: dict[Xattrs, int] = {(): NO_XATTRS}

    def number(self, attributes: Xattrs) -> int:
        """The number of a set; all names must begin with `user.`."""
        known = self._numbers.get(attributes)
        if known is not None:
            return known
        place = self._pairs.block << 16 | self._pairs.offset
        size = 0
        for name, value in attributes:
            plain = name[len(_PREFIXES[0]) :]
            record = _KEY.pack(0, len(plain)) + plain + _LENGTH.pack(len(value)) + value
            # What Linux answers listxattr with: names with their ends.
            size += len(name) + 1
            self._pairs.write(record)
        self._sets += _SET.pack(place, len(attributes), size)
        number = self._numbers[attributes] = len(self._numbers) - 1
        return number

    def finish(self, start: int) -> tuple[bytes, int] | None:
        """The table.

        Args:
            start: Where in the image it will lie.

        Returns:
            Its bytes, and the offset the superblock points at; None if no inode has attributes.
        """
        if not self._sets:
            return None
        pairs = bytes(self._pairs.finish())
        packed, pointers = tables.pack(bytes(self._sets), self._compressor, start + len(pairs))
        places = pointers - start - len(pairs)
        header = _HEADER.pack(start, len(self._sets) // _SET.size, 0)
        return pairs + packed[:places] + header + packed[places:], pointers


class XattrReader:
    """Sets of attributes, each read once.

    Time and memory are linear in the table: sets do not overlap in what honest writers make, nor do values that are
    stored elsewhere, so the sum of both is bounded by the table's size.

    Args:
        read: Gives exactly (offset, length) of the image, or raises.
        pointers: What the superblock says.
        compressor: The image's.
        limit: Most bytes of the table, unpacked.

    Raises:
        ConvertError: It is damaged.
    """

    def __init__(self, read: Callable[[int, int], bytes], pointers: int, compressor: Compressor, limit: int) -> None:
        start, self.count, _ = _HEADER.unpack(read(pointers, _HEADER.size))
        if self.count * _SET.size > limit:
            raise ConvertError(f"{_DAMAGED} are too many")
        self._known: dict[int, Xattrs] = {NO_XATTRS: ()}
        self._values: dict[int, bytes] = {}
        self._sets, self._table = b"", Metadata(b"", {})
        if self.count:
            lists = pointers + _HEADER.size
            end = tables.first_block(read, lists)
            if not start <= end <= pointers or end - start > limit:
                raise ConvertError(f"{_DAMAGED} are out of order")
            self._sets = tables.unpack(read, lists, self.count, _SET.size, compressor, end=pointers)
            self._table = metadata.unpack(read(start, end - start), compressor, limit)
        self._room = 2 * len(self._table.data)
        # What is stored once and referred to is handed out, and may be written, as often as it is.
        self._shared = limit

    def get(self, number: int) -> Xattrs:
        """The set of that number.

        Raises:
            ConvertError: There is none, or it is damaged.
        """
        known = self._known.get(number)
        if known is None:
            known = self._known[number] = self._parse(number)
        return known

    def _parse(self, number: int) -> Xattrs:
        if number >= self.count:
            raise ConvertError(f"{_DAMAGED} lie outside their table")
        where, count, _ = _SET.unpack_from(self._sets, number * _SET.size)
        begin = position = self._position(where)
        data = self._table.data
        found: dict[bytes, bytes] = {}
        try:
            for _ in range(count):
                kind, length = _KEY.unpack_from(data, position)
                position += _KEY.size
                name = data[position : position + length]
                position += length
                value, position = self._value(position, bool(kind & _ELSEWHERE))
                prefix = kind & ~_ELSEWHERE
                if prefix >= len(_PREFIXES) or not 0 < length <= _MAX_NAME or len(name) != length or b"\0" in name:
                    raise ConvertError(f"{_DAMAGED} have an impossible name")
                if found.setdefault(_PREFIXES[prefix] + name, value) is not value:
                    raise ConvertError(f"{_DAMAGED} have a name twice")
                if position - begin > self._room:
                    raise ConvertError(f"{_DAMAGED} overlap")
        except struct.error:
            raise ConvertError(f"{_DAMAGED} are cut off") from None
        self._charge(position - begin)
        return tuple(sorted(found.items()))

    def _value(self, position: int, elsewhere: bool) -> tuple[bytes, int]:
        data = self._table.data
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if not elsewhere:
            value = data[position : position + length]
            if length > _MAX_VALUE or len(value) != length:
                raise ConvertError(f"{_DAMAGED} are cut off")
            return value, position + length
        (reference,) = _REFERENCE.unpack_from(data, position)
        if length != _REFERENCE.size:
            raise ConvertError(f"{_DAMAGED} have an impossible reference")
        if reference not in self._values:
            self._values[reference], _ = self._value(self._position(reference), False)
            self._charge(len(self._values[reference]))
        self._shared -= len(self._values[reference])
        if self._shared < 0:
            raise ConvertError(f"{_DAMAGED} are too long")
        return self._values[reference], position + _REFERENCE.size

    def _position(self, reference: int) -> int:
        return self._table.position(reference >> 16, reference & 0xFFFF)

    def _charge(self, length: int) -> None:
        self._room -= length
        if self._room < 0:
            raise ConvertError(f"{_DAMAGED} overlap")

"""Layer tars, read as a stream: ustar, GNU and pax (POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual,
"Basic Tar Format" and "Storing Sparse Files").

Our own reader, because the standard library's ends quietly at a damaged header, keeps every member in memory, and hands
names out decoded. Where formats leave room, this does what Go's archive/tar does, which container engines read layers
with: global pax headers are read and not applied.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs.stream import HashedStream

_RECORD = 512
_ZEROS = bytes(1 << 20)
_END = bytes(_RECORD)
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s66s8s8s155s12x")
"""Name, mode, uid, gid, size, mtime, checksum, type flag, link, magic, version and owners' names, major, minor, prefix.
"""
_MAX_HEADER = 1 << 20
"""Bytes of a pax or GNU name header, as in Go."""
_MAX_EXTENTS = 1 << 20
_SCHILY, _LIBARCHIVE = b"SCHILY.xattr.", b"LIBARCHIVE.xattr."
_EXTENDED = frozenset((b"x", b"g", b"L", b"K"))
_OLD_FILE, _CONTIGUOUS, _GNU_SPARSE = b"\0", b"7", b"S"
LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO, FILE = b"1", b"2", b"3", b"4", b"5", b"6", b"0"
"""Kinds of members, by their type flag."""
_FILES = frozenset((FILE, _OLD_FILE, _CONTIGUOUS, _GNU_SPARSE))


@dataclass(slots=True)
class Member:
    """One member, its name as it stands in the tar.

    Attributes:
        kind: One of the type flags above.
        mtime: Unix time in whole seconds; may be negative.
        size: Bytes of a file, holes included; 0 for the others.
        link: Target of a hard or symbolic link.
        device: Major and minor number.
        extents: Of a sparse file: (offset, length) of what is not a hole.
        xattrs: Extended attributes, full names and values.
    """

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    link: bytes
    device: tuple[int, int]
    extents: list[tuple[int, int]] | None = field(default=None)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


def quoted(name: bytes) -> str:
    """A member's name as it can be shown in a message."""
    text = repr(name.decode("utf-8", "surrogateescape"))
    return text.encode("ascii", "backslashreplace").decode()[:300]


class TarReader:
    """Iterates over a tar's members; the content of the current one is had with `read`.

    Args:
        stream: The tar.
    """

    def __init__(self, stream: HashedStream) -> None:
        self._stream = stream
        self._stored = 0
        self._padding = 0
        self._member: Member | None = None
        self._position = 0
        self._extent = 0

    def __iter__(self) -> Iterator[Member]:
        """Members in the order of the tar.

        Raises:
            ConvertError: The tar is damaged, cut off, or has a kind of member no layer can have.
        """
        pax: dict[bytes, bytes] = {}
        sparse: list[bytes] = []
        long_name = long_link = None
        while True:
            self._skip(self._stored + self._padding)
            self._stored = self._padding = 0
            header = self._stream.read(_RECORD)
            if not header or header == _END:
                if pax or long_name or long_link:
                    raise ConvertError("damaged tar: it ends after an extended header")
                return
            if len(header) < _RECORD:
                raise ConvertError("damaged tar: it is cut off")
            fields = _HEADER.unpack(header)
            _check(header, _number(fields[6]))
            kind = fields[7]
            if kind in _EXTENDED:
                size = _number(fields[4])
                if size > _MAX_HEADER:
                    raise ConvertError(f"damaged tar: an extended header of {size} bytes")
                content = self._take(size)
                self._skip(-size % _RECORD)
                if kind == b"x":
                    pax, sparse = _pax(content)
                elif kind == b"L":
                    long_name = content.partition(b"\0")[0]
                elif kind == b"K":
                    long_link = content.partition(b"\0")[0]
                continue
            name, _, _, _, _, _, _, _, link, magic, _, _, _, prefix = fields
            name = name.partition(b"\0")[0] if long_name is None else long_name
            if long_name is None and magic == b"ustar\0" and prefix[0]:
                name = prefix.partition(b"\0")[0] + b"/" + name
            link = link.partition(b"\0")[0] if long_link is None else long_link
            if pax:
                name = pax.get(b"GNU.sparse.name") or pax.get(b"path", name)
                link = pax.get(b"linkpath", link)
            try:
                member = self._read_member(name, link, header, fields, pax, sparse)
            except ConvertError as error:
                raise ConvertError(f"tar member {quoted(name)}: {error.message}") from None
            if pax or sparse:
                pax, sparse = {}, []
            long_name = long_link = None
            self._member, self._position, self._extent = member, 0, 0
            yield member

    def _read_member(
        self,
        name: bytes,
        link: bytes,
        header: bytes,
        fields: tuple[bytes, ...],
        pax: dict[bytes, bytes],
        sparse: list[bytes],
    ) -> Member:
        _, mode, uid, gid, size, mtime, _, kind, _, _, _, major, minor, _ = fields
        member = Member(name, kind, _number(mode) & 0o7777, 0, 0, 0, 0, link, (0, 0))
        length = _number(size)
        if pax:
            length = _pax_number(pax, b"size", size)
            member.uid = _pax_number(pax, b"uid", uid)
            member.gid = _pax_number(pax, b"gid", gid)
            member.mtime = _pax_number(pax, b"mtime", mtime)
            member.xattrs = _xattrs(pax)
        else:
            member.uid, member.gid, member.mtime = _number(uid), _number(gid), _number(mtime)
        if length < 0 or member.uid < 0 or member.gid < 0:
            raise ConvertError("damaged tar: a negative number")
        if kind == _OLD_FILE and name.endswith(b"/"):
            member.kind = DIRECTORY
        elif kind in _FILES:
            member.kind = FILE
            member.size = self._stored = length
            self._padding = -length % _RECORD
            if pax or sparse or kind == _GNU_SPARSE:
                self._read_extents(header, kind, pax, sparse, member)
        elif kind in (CHARACTER, BLOCK):
            member.device = (_number(major), _number(minor))
        elif kind not in (LINK, SYMLINK, DIRECTORY, FIFO):
            raise ConvertError(f"members of type {quoted(kind)} are not supported")
        return member

    def _read_extents(
        self, header: bytes, kind: bytes, pax: dict[bytes, bytes], sparse: list[bytes], member: Member
    ) -> None:
        numbers: list[int]
        if kind == _GNU_SPARSE:
            numbers = self._old_extents(header)
            real = _number(header[483:495])
        elif pax.get(b"GNU.sparse.major") == b"1":
            numbers = self._stored_extents()
            real = _decimal(pax.get(b"GNU.sparse.realsize", b""))
        elif b"GNU.sparse.map" in pax:
            numbers = [_decimal(part) for part in pax[b"GNU.sparse.map"].split(b",")]
            real = _decimal(pax.get(b"GNU.sparse.size", b""))
        elif sparse:
            numbers = [_decimal(part) for part in sparse]
            real = _decimal(pax.get(b"GNU.sparse.size", b""))
        else:
            return
        extents = list(zip(numbers[::2], numbers[1::2], strict=False))
        end = total = 0
        for offset, length in extents:
            if offset < end or length < 0:
                raise ConvertError("damaged tar: its sparse map is out of order")
            end = offset + length
            total += length
        if end > real or total != self._stored or len(numbers) % 2:
            raise ConvertError("damaged tar: its sparse map does not fit its size")
        member.size = real
        member.extents = [(offset, length) for offset, length in extents if length]

    def _old_extents(self, header: bytes) -> list[int]:
        numbers = _old_map(header[386:482], 4)
        more = header[482]
        while more:
            record = self._take(_RECORD)
            numbers += _old_map(record[:504], 21)
            more = record[504]
            if len(numbers) > 2 * _MAX_EXTENTS:
                raise ConvertError("damaged tar: its sparse map is too long")
        return numbers

    def _stored_extents(self) -> list[int]:
        # Lines of decimal numbers, the first says how many extents follow, padded to a whole record.
        text = b""
        wanted: int | None = None
        while wanted is None or text.count(b"\n") < 1 + wanted:
            if self._stored < _RECORD:
                raise ConvertError("damaged tar: its sparse map is cut off")
            text += self._take(_RECORD)
            self._stored -= _RECORD
            if wanted is None and b"\n" in text:
                wanted = 2 * _decimal(text.partition(b"\n")[0])
            if len(text) > 2 * _MAX_HEADER or (wanted or 0) > 2 * _MAX_EXTENTS:
                raise ConvertError("damaged tar: its sparse map is too long")
        return [_decimal(line) for line in text.split(b"\n")[1 : 1 + wanted]]

    def read(self, length: int) -> bytes:
        """The next `length` bytes of the current member's content, holes as zeros.

        Raises:
            ConvertError: The tar is cut off.
        """
        member = self._member
        if member is None or member.extents is None:
            data = self._take(length)
            self._stored -= len(data)
            return data
        parts = []
        while length:
            offset, size = member.extents[self._extent] if self._extent < len(member.extents) else (member.size, 0)
            if self._position < offset:
                part = _ZEROS[: min(length, offset - self._position)]
            else:
                part = self._take(min(length, offset + size - self._position))
                self._stored -= len(part)
            self._position += len(part)
            length -= len(part)
            parts.append(part)
            if self._position >= offset + size:
                self._extent += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def view(self, length: int) -> bytes | memoryview:
        """As `read`, but a part of what was read ahead where that can be.

        Raises:
            ConvertError: The tar is cut off.
        """
        if self._member is None or self._member.extents is not None:
            return self.read(length)
        data = self._stream.view(length)
        if len(data) != length:
            raise ConvertError("damaged tar: it is cut off")
        self._stored -= length
        return data

    def pass_hole(self, unit: int) -> int:
        """Go over as many whole units of the current member's content as are a hole from here on.

        Args:
            unit: Bytes.

        Returns:
            How many units that was.
        """
        member = self._member
        if member is None or member.extents is None:
            return 0
        end = member.extents[self._extent][0] if self._extent < len(member.extents) else member.size
        count = max(end - self._position, 0) // unit
        self._position += count * unit
        return count

    def _take(self, length: int) -> bytes:
        data = self._stream.read(length)
        if len(data) != length:
            raise ConvertError("damaged tar: it is cut off")
        return data

    def _skip(self, length: int) -> None:
        if self._stream.skip(length) != length:
            raise ConvertError("damaged tar: it is cut off")


def _check(header: bytes, stored: int) -> None:
    # Adler-32's low half is one more than the sum of the bytes, modulo 65521, which half a header's stay below.
    total = (zlib.adler32(header[:256]) & 0xFFFF) + (zlib.adler32(header[256:]) & 0xFFFF) - 2
    # The checksum's own field counts as eight blanks.
    field = header[148:156]
    if stored == total - sum(field) + 256:
        return
    rest = header[:148] + b"        " + header[156:]
    if stored != sum(byte - 256 if byte > 127 else byte for byte in rest):
        raise ConvertError("damaged tar: a header's checksum is wrong")


@lru_cache(4096)
def _number(data: bytes) -> int:
    if data[0] & 0x80:
        # GNU: binary, big-endian, two's complement below the marking bit.
        value = int.from_bytes(data, "big") - (1 << (8 * len(data) - 1))
        return value - (1 << (8 * len(data) - 1)) if data[0] & 0x40 else value
    text = data.strip(b" \0").partition(b"\0")[0]
    if not text:
        return 0
    try:
        if not text.isdigit():
            raise ValueError
        return int(text, 8)
    except ValueError:
        raise ConvertError(f"damaged tar: {quoted(text)} is no number") from None


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise ConvertError(f"damaged tar: {quoted(text[:40])} is no number")
    return int(text)


def _pax_number(pax: dict[bytes, bytes], key: bytes, field: bytes) -> int:
    """The number that a pax header gives, or the header's field where it gives none."""
    text = pax.get(key)
    if text is None:
        return _number(field)
    whole, _, _ = text.partition(b".") if key == b"mtime" else (text, b"", b"")
    negative = whole.startswith(b"-")
    value = _decimal(whole.lstrip(b"-") if negative else whole)
    return -value if negative else value


def _xattrs(pax: dict[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Extended attributes as star and GNU tar write them (which engines do), and as libarchive does."""
    if not any(b".xattr." in key for key in pax):
        return ()
    from urllib.parse import unquote_to_bytes

    found = {}
    for key, value in pax.items():
        if key.startswith(_LIBARCHIVE):
            try:
                # Padding is left out.
                content = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
            except ValueError:
                raise ConvertError("damaged tar: an extended attribute is no base64") from None
            found[unquote_to_bytes(key[len(_LIBARCHIVE) :])] = content
    found.update({key[len(_SCHILY) :]: value for key, value in pax.items() if key.startswith(_SCHILY)})
    return tuple(found.items())


def _old_map(data: bytes, count: int) -> list[int]:
    numbers = []
    for begin in range(0, 24 * count, 24):
        if data[begin] == 0:
            break
        numbers += [_number(data[begin : begin + 12]), _number(data[begin + 12 : begin + 24])]
    return numbers


def _pax(content: bytes) -> tuple[dict[bytes, bytes], list[bytes]]:
    records: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    position = 0
    while position < len(content):
        space = content.find(b" ", position, position + 20)
        if space < 0:
            raise ConvertError("damaged tar: a pax header is malformed")
        length = _decimal(content[position:space])
        record = content[space + 1 : position + length]
        key, equals, value = record[:-1].partition(b"=")
        if not equals or record[-1:] != b"\n" or position + length > len(content) or b"\0" in key:
            raise ConvertError("damaged tar: a pax header is malformed")
        position += length
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append(value)
        elif value:
            records[key] = value
        else:
            records.pop(key, None)
    return records, sparse

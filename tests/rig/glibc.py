"""Make programs that were linked against glibc 2.38 load with an older one, where only renamed functions differ.

glibc 2.38 gave ``strtol`` and its kin a second name, ``__isoc23_strtol`` (C23 lets them read ``0b``), and headers of
that version use it. A program that takes nothing else from 2.38 runs with 2.34 once it asks for the old name. The old
name is the tail of the new one in the table of strings, so an offset moves and nothing grows.

Format: System V gABI, chapter 5 (dynamic symbols); Linux Standard Base core, "Symbol Versioning" (``.gnu.version_r``).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

_NEW = b"GLIBC_2.38"
_OLD = b"GLIBC_2.2.5"
_PREFIX = b"__isoc23_"
_DYNSYM, _VERNEED, _VERSYM = 11, 0x6FFFFFFE, 0x6FFFFFFF


class NotAdjustable(Exception):
    """The file is no 64-bit little-endian program, or takes more from the newer glibc than renamed functions."""


def machine_has(version: tuple[int, int]) -> bool:
    """Whether this machine's glibc is at least that version."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""  # "glibc 2.36"
        return tuple(int(part) for part in text.split()[1].split(".")[:2]) >= version
    except (OSError, ValueError, IndexError):
        return False


def adjust(path: Path) -> list[str]:
    """Point a program's use of renamed functions at their old names, in place.

    Returns:
        The symbols that were changed: none where the program does not need the newer glibc.

    Raises:
        NotAdjustable: it takes other symbols from the newer glibc; the file is left as it was.
    """
    image = bytearray(path.read_bytes())
    if image[:6] != b"\x7fELF\x02\x01":
        raise NotAdjustable(f"{path.name}: not a 64-bit little-endian ELF file")
    try:
        changed = _adjust(image, path.name)
    except (struct.error, ValueError, IndexError, StopIteration) as error:
        raise NotAdjustable(f"{path.name}: {error}") from error
    if changed:
        path.write_bytes(image)
    return changed


def _adjust(image: bytearray, name: str) -> list[str]:
    (table,) = struct.unpack_from("<Q", image, 0x28)
    size, count = struct.unpack_from("<HH", image, 0x3A)
    # Elf64_Shdr: name, type, flags, address, offset, size, link, info, alignment, entry size
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, table + index * size) for index in range(count)]
    by_type = {section[1]: section for section in sections}
    if not {_DYNSYM, _VERNEED, _VERSYM} <= by_type.keys():
        return []  # static: it brings its own libc
    symbols, needed, versions = by_type[_DYNSYM], by_type[_VERNEED], by_type[_VERSYM]
    strings = sections[symbols[6]]
    start, end = strings[4], strings[4] + strings[5]

    def text(offset: int) -> bytes:
        return bytes(image[start + offset : image.index(0, start + offset)])

    newer = {}  # version index -> where its Elf64_Vernaux lies
    offset = needed[4]
    for _ in range(needed[7]):
        _, auxiliaries, _, first, following = struct.unpack_from("<HHIII", image, offset)
        position = offset + first
        for _ in range(auxiliaries):
            _, _, index, label, step = struct.unpack_from("<IHHII", image, position)
            if text(label) == _NEW:
                newer[index] = position
            position += step
        offset += following
    if not newer:
        return []
    old = image.find(b"\0" + _OLD + b"\0", start, end) + 1 - start
    if old <= 0 - start + 1:
        raise NotAdjustable(f"{name}: does not name {_OLD.decode()}")
    changed = []
    for number in range(symbols[5] // 24):
        (version,) = struct.unpack_from("<H", image, versions[4] + 2 * number)
        if version & 0x7FFF in newer:
            entry = symbols[4] + 24 * number
            (label,) = struct.unpack_from("<I", image, entry)
            symbol = text(label)
            if not symbol.startswith(_PREFIX):
                raise NotAdjustable(f"{name}: takes {symbol.decode(errors='replace')} from {_NEW.decode()}")
            struct.pack_into("<I", image, entry, label + len(_PREFIX))
            changed.append(symbol.decode())
    for position in newer.values():
        struct.pack_into("<I", image, position, _hash(_OLD))
        struct.pack_into("<I", image, position + 8, old)
    return changed


def _hash(name: bytes) -> int:
    """The hash that version tables carry beside a name (gABI, "Hash Table")."""
    value = 0
    for byte in name:
        value = (value << 4) + byte
        top = value & 0xF0000000
        value = (value ^ top >> 24) & ~top & 0xFFFFFFFF
    return value

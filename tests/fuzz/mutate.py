"""Changes that know the format, so that what they make is not refused at its first byte.

Each takes an input and a source of chance and gives another input; atheris' own mutations come on top.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

Mutator = Callable[[bytes, Random], bytes]

_ODD = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 1 << 24, (1 << 24) | 4096, 1 << 31)
_ODD_LONG = (*_ODD, 0xFFFFFFFF, 1 << 32, 1 << 40, (1 << 62), (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


def _poke(data: bytearray, begin: int, end: int, chance: Random) -> None:
    """Change one number of two, four or eight bytes, or copy one from elsewhere, or flip a bit."""
    end = min(end, len(data))
    if end - begin < 8:
        return
    width, form = chance.choice(((1, "<B"), (2, "<H"), (4, "<I"), (8, "<Q")))
    place = chance.randrange(begin, end - width + 1)
    way = chance.randrange(4)
    if way == 0:
        data[place] ^= 1 << chance.randrange(8)
    elif way == 1:
        origin = chance.randrange(begin, end - width + 1)
        data[place : place + width] = data[origin : origin + width]
    elif way == 2:
        (value,) = struct.unpack_from(form, data, place)
        value += chance.choice((-8192, -16, -1, 1, 3, 16, 8192))
        struct.pack_into(form, data, place, value % (1 << 8 * width))
    else:
        struct.pack_into(form, data, place, chance.choice(_ODD_LONG) % (1 << 8 * width))


def mutate_squashfs(raw: bytes, chance: Random, begin: int = 0) -> bytes:
    """The superblock's fields, and records in the tables; headers of metadata blocks more rarely."""
    data = bytearray(raw)
    if len(data) < begin + 96:
        return raw
    (used,) = struct.unpack_from("<Q", data, begin + 40)
    starts = sorted(
        place for place in struct.unpack_from("<6Q", data, begin + 48) if 96 <= place < min(used, len(data) - begin)
    )
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if not starts or chance.random() < 0.15:
            _poke(data, begin, begin + 96, chance)
            continue
        index = chance.randrange(len(starts))
        end = starts[index + 1] if index + 1 < len(starts) else used
        # Behind the first block's header, most of the time.
        _poke(data, begin + starts[index] + (2 if chance.random() < 0.9 else 0), begin + end, chance)
    return bytes(data)


def mutate_sif(raw: bytes, chance: Random) -> bytes:
    """Header, descriptors, or the squashfs behind them."""
    data = bytearray(raw)
    image = raw.find(b"hsqs")
    if image > 0 and chance.random() < 0.4:
        return mutate_squashfs(raw, chance, image)
    for _ in range(chance.choice((1, 1, 2, 4))):
        if chance.random() < 0.3:
            _poke(data, 32, 128, chance)
        else:
            _poke(data, 128, image if image > 128 else len(data), chance)
    return bytes(data)


_FIELDS = ((0, 100), (100, 8), (108, 8), (124, 12), (136, 12), (156, 1), (157, 100))
_NUMBERS = ((108, 8), (116, 8), (124, 12), (136, 12), (329, 8), (337, 8), (386, 12), (398, 12), (483, 12))
_PARTS = [b"a", b"d", b"..", b".", b"", b"one", b"link", b"x" * 60, b"\xff", b".wh.one", b".wh..wh..opq"]


def mutate_tar(raw: bytes, chance: Random) -> bytes:
    """Records moved, doubled, dropped; fields changed; each header's sum made right again."""
    records = [bytearray(raw[n : n + 512].ljust(512, b"\0")) for n in range(0, len(raw), 512)]
    headers = [n for n, record in enumerate(records) if _is_header(record)]
    if not headers:
        return raw
    for _ in range(chance.choice((1, 1, 2, 4))):
        way = chance.randrange(7)
        index = chance.choice(headers) if headers else 0
        index = min(index, len(records) - 1)
        record = records[index]
        if way == 0:
            records.insert(chance.randrange(len(records) + 1), bytearray(record))
        elif way == 1 and len(records) > 2:
            del records[index]
        elif way == 2:
            # One member's field into another's.
            begin, length = chance.choice(_FIELDS)
            other = records[min(chance.choice(headers), len(records) - 1)]
            record[begin : begin + length] = other[begin : begin + length]
        elif way == 3:
            record[156] = chance.choice(b"0\x001234567SxgLKV")
        elif way == 4:
            begin, length = chance.choice(_NUMBERS)
            value = chance.choice(_ODD_LONG)
            text = b"%o" % value
            if chance.random() < 0.5 or len(text) >= length:
                number = b"\x80" + (value % (1 << 8 * (length - 1))).to_bytes(length - 1, "big")
            else:
                number = text.rjust(length - 1, b"0") + b"\0"
            record[begin : begin + length] = number
        elif way == 5:
            begin = chance.choice((0, 157))
            path = b"/".join(chance.choices(_PARTS, k=chance.randint(1, 5)))
            record[begin : begin + 100] = path[:100].ljust(100, b"\0")
        else:
            _poke(records[chance.randrange(len(records))], 0, 512, chance)
    for record in records:
        if _is_header(record) or record[257:262] == b"ustar":
            record[148:156] = b"        "
            record[148:156] = b"%06o\0 " % (sum(record) & 0o777777)
    return b"".join(map(bytes, records))


def _is_header(record: bytearray) -> bool:
    return record[257:262] == b"ustar"


def mutate_json(raw: bytes, chance: Random) -> bytes:
    """Values replaced by others, of other kinds too."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    for _ in range(chance.choice((1, 1, 2, 4))):
        value = _changed(value, chance)
    return json.dumps(value).encode()


def mutate_tarsplit(raw: bytes, chance: Random) -> bytes:
    """Lines of JSON."""
    if raw[:1] != b"p":
        return raw
    lines = raw[1:].splitlines()
    if not lines:
        return raw
    index = chance.randrange(len(lines))
    if chance.random() < 0.3:
        lines.insert(index, lines[chance.randrange(len(lines))])
    else:
        lines[index] = mutate_json(lines[index], chance)
    return b"p" + b"\n".join(lines) + b"\n"


def mutate_files(raw: bytes, chance: Random) -> bytes:
    """One of several JSON files with NUL between them."""
    files = raw.split(b"\0")
    index = chance.randrange(len(files))
    files[index] = mutate_json(files[index], chance)
    return b"\0".join(files)


def mutate_archive(raw: bytes, chance: Random) -> bytes:
    """The tar, or what `manifest.json` says; the sizes are left as they were where they fit."""
    begin = raw.find(b'[{"Config"')
    if begin < 0 or chance.random() < 0.5:
        return mutate_tar(raw, chance)
    end = begin - begin % 512 + 512
    changed = mutate_json(raw[begin:end].rstrip(b"\0 "), chance)
    return raw[:begin] + changed[: end - begin].ljust(end - begin) + raw[end:]


def _changed(value: Any, chance: Random) -> Any:
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        if chance.random() < 0.1:
            return {other: its for other, its in value.items() if other != key}
        return {**value, key: _changed(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.85:
        index = chance.randrange(len(value))
        if chance.random() < 0.1:
            return value + [value[index]]
        return [*value[:index], _changed(value[index], chance), *value[index + 1 :]]
    return chance.choice(
        [None, True, 0, -1, 1 << 70, 1.5, float("inf"), float("nan"), "", "x", "\0", "\ud800", "=", "a=b", "\n", "'",
         "sha256:" + "0" * 64, [], {}, [[]], {"": None}, "../../etc/passwd", "/", "pipe", "out"]
    )  # fmt: skip


MUTATORS: dict[str, Mutator] = {
    "squashfs": mutate_squashfs,
    "merge": mutate_squashfs,
    "sif": mutate_sif,
    "tar": mutate_tar,
    "archive": mutate_archive,
    "layout": mutate_files,
    "config": mutate_json,
    "manifest": mutate_json,
    "tarsplit": mutate_tarsplit,
    "storage": mutate_files,
}
"""Target -> how its inputs are changed."""

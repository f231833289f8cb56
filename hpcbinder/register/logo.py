"""The kernels' logo: three sheets, stacked like the layers of an image. One description, drawn as SVG and as PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

_Point = tuple[float, float]

_SHEETS: Sequence[tuple[str, Sequence[_Point]]] = (
    ("1f3a5f", ((0.50, 0.50), (0.96, 0.70), (0.50, 0.90), (0.04, 0.70))),
    ("3d7ea6", ((0.50, 0.32), (0.96, 0.52), (0.50, 0.72), (0.04, 0.52))),
    ("f2a541", ((0.50, 0.10), (0.96, 0.32), (0.50, 0.54), (0.04, 0.32))),
)
"""Colour (RGB hex) and convex outline in a unit square, from the back to the front."""

_FINE = 4
"""Samples per pixel and direction, for smooth edges."""


def svg() -> bytes:
    """The logo as SVG."""
    shapes = "".join(
        f'<polygon fill="#{colour}" points="{" ".join(f"{x * 64:g},{y * 64:g}" for x, y in outline)}"/>'
        for colour, outline in _SHEETS
    )
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">{shapes}</svg>\n'.encode()


def png(size: int) -> bytes:
    """The logo as a PNG of `size` × `size` pixels, with a transparent background (format: RFC 2083)."""
    fine = size * _FINE
    rows = bytearray()
    for y in range(size):
        sums = [[0, 0, 0, 0] for _ in range(size)]
        for line in range(_FINE):
            # The front-most sheet's colour for every sample of this line.
            samples: list[bytes | None] = [None] * fine
            for colour, outline in _SHEETS:
                start, end = _span(outline, (y + (line + 0.5) / _FINE) / size)
                first, last = max(0, round(start * fine)), min(fine, round(end * fine))
                samples[first:last] = [bytes.fromhex(colour)] * max(0, last - first)
            for x, sample in enumerate(samples):
                if sample is not None:
                    pixel = sums[x // _FINE]
                    for channel in range(3):
                        pixel[channel] += sample[channel]
                    pixel[3] += 1
        rows.append(0)
        for red, green, blue, hits in sums:
            rows += bytes((red // hits, green // hits, blue // hits) if hits else (0, 0, 0))
            rows.append(hits * 255 // _FINE**2)
    header = struct.pack(">IIBBBBB", size, size, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _span(outline: Sequence[_Point], y: float) -> tuple[float, float]:
    """Where the horizontal line at `y` enters and leaves a convex outline; an empty span if it misses it."""
    crossings = [
        x0 + (y - y0) / (y1 - y0) * (x1 - x0)
        for (x0, y0), (x1, y1) in zip(outline, [*outline[1:], outline[0]], strict=True)
        if min(y0, y1) <= y < max(y0, y1)
    ]
    return (min(crossings), max(crossings)) if crossings else (0.0, 0.0)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

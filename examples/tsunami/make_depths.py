"""Compute data/depths.f32, the sea of this example: a made-up basin, so that nobody takes it for a real coast.

A deep sea in the west, a ridge with an island on it, a shelf, and in the east a coast with a funnel-shaped bay.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

NX, NY = 480, 320
"""Cells of 2 km, west to east and south to north."""


def depths() -> np.ndarray:
    """Metres of water, negative on land, [NY, NX]."""
    y, x = np.mgrid[0:NY, 0:NX].astype(float)
    coast = 420 + 14 * np.sin(y / 23) + 7 * np.sin(y / 7.3 + 1)
    coast += 55 * np.exp(-(((y - 170) / 16) ** 2))  # the bay
    coast -= 26 * np.exp(-(((y - 95) / 30) ** 2))  # a headland
    shelf = np.clip((coast - x) / 60, -0.4, 1)
    depth = 150 * shelf + 3850 * np.clip((coast - 60 - x) / 45, 0, 1)
    depth -= 2600 * np.exp(-(((x - 230 - 0.25 * (y - 160)) / 22) ** 2))  # the ridge
    depth -= 5200 * np.exp(-(((x - 236) / 15) ** 2 + ((y - 190) / 11) ** 2))  # the island
    rough = np.random.default_rng(1700).normal(size=(NY // 8, NX // 8))
    depth += 60 * np.kron(rough, np.ones((8, 8))) * (depth > 1000)
    return depth.astype("<f4")


if __name__ == "__main__":
    path = Path(__file__).parent / "data" / "depths.f32"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(depths().tobytes())
    print(f"{path}: {NX} x {NY} cells, {path.stat().st_size} bytes")

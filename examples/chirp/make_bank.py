"""Compute the template bank: whitened inspirals over a grid of chirp masses. Run by postBuild, kept in the image."""

from __future__ import annotations

import sys

import numpy as np
from chirp import RATE, inspiral, whiten

MASSES = np.round(np.geomspace(8.0, 45.0, 120), 3)
"""Chirp masses, solar masses."""


def main(path: str) -> None:
    """Write the bank."""
    templates = {}
    for mass in MASSES:
        shape = inspiral(mass)
        # Whitening is a filter with memory: leave it room before the template, then keep what carries power.
        white = whiten(np.concatenate([np.zeros(RATE), shape, np.zeros(RATE)]))[: RATE + len(shape)]
        templates[f"{mass:.3f}"] = (white / np.linalg.norm(white)).astype(np.float32)
    np.savez_compressed(path, **templates)
    print(f"{len(templates)} templates, {MASSES[0]} to {MASSES[-1]} solar masses")


if __name__ == "__main__":
    main(sys.argv[1])

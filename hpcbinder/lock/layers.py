"""In which layers a lock's packages are unpacked, so that what an environment made before has is not made again."""

from __future__ import annotations

from collections.abc import Iterable

from hpcbinder.model import Lock, LockedPackage

DEEPEST = 8
"""Layers of one lock: each costs a moment in every build and a place among the layers an engine allows (127)."""


def layered(lock: Lock, others: Iterable[Lock]) -> tuple[tuple[str, ...], ...]:
    """Put a lock's packages into layers: the longest beginning of another lock's layers that this one has, package by
    package, then the rest.

    A beginning with less than half of the packages is not worth it, nor one of more than `DEEPEST` layers.

    Args:
        others: Locks to stand on; of another Python or platform, they never fit.
    """
    mine = set(lock.packages)
    best: tuple[tuple[str, ...], ...] = ()
    best_count = 0
    for other in others:
        if (other.ecosystem, other.python, other.platform) != (lock.ecosystem, lock.python, lock.platform):
            continue
        beginning = _beginning(other, mine)
        if len(beginning) >= DEEPEST and sum(map(len, beginning)) < len(mine):
            continue
        count = sum(map(len, beginning))
        # Of two that hold as much, the one in fewer layers; then the one that is smaller as text: always the same.
        if (-count, len(beginning), beginning) < (-best_count, len(best), best):
            best, best_count = beginning, count
    if best_count * 2 < len(mine):
        best = ()
    had = {name for layer in best for name in layer}
    rest = tuple(sorted(package.name for package in lock.packages if package.name not in had))
    return (*best, rest) if rest else best


def _beginning(other: Lock, mine: set[LockedPackage]) -> tuple[tuple[str, ...], ...]:
    packages = {package.name: package for package in other.packages}
    layers: list[tuple[str, ...]] = []
    for layer in other.layers:
        if not all(packages.get(name) in mine for name in layer):
            break
        layers.append(layer)
    return tuple(layers)

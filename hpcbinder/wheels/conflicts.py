"""Files that several wheels of an environment have."""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Sequence
from pathlib import Path

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import Image
from hpcbinder.wheels.target import Target

_LIMIT = 256 << 20
"""Bytes of a RECORD."""


def conflicts(layers: Sequence[tuple[str, Path]], target: Target) -> list[tuple[str, list[str]]]:
    """Find them, by what the layers' RECORDs say.

    Args:
        layers: Package and layer, the lowest first.

    Returns:
        (path below the prefix, packages from the lowest to the topmost), sorted by path.

    Raises:
        ConvertError: A layer is damaged.
    """
    owner: dict[str, str] = {}
    shared: dict[str, list[str]] = {}
    for name, layer in layers:
        for path in _paths(layer, target):
            if path in owner:
                shared.setdefault(path, [owner[path]]).append(name)
            else:
                owner[path] = name
    return [(posixpath.normpath(f"{target.packages}/{path}"), names) for path, names in sorted(shared.items())]


def _paths(layer: Path, target: Target) -> list[str]:
    """As RECORD has them, without bytecode."""
    packages = f"{target.prefix}/{target.packages}"
    with Image.open(layer) as image:
        for name in image.listdir(packages):
            if name.endswith(".dist-info"):
                text = image.read(f"{packages}/{name}/RECORD", _LIMIT).decode()
                return [row[0] for row in csv.reader(io.StringIO(text)) if row and not row[0].endswith(".pyc")]
    raise ConvertError("is no layer of a wheel", where=str(layer))

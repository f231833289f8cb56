"""The bill of materials in a SIF."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpcbinder import sif
from hpcbinder.errors import ConvertError
from hpcbinder.look.opened import looks_like_sif
from hpcbinder.sif import Kind, Sif

_LIMIT = 64 << 20
_COUNTED = 8 << 20
_LISTS = ("components", "packages", "artifacts")
"""Where CycloneDX, SPDX 2 and syft list what there is."""


def stored_sbom(path: Path) -> bytes:
    """The bill of materials that a SIF brings along, as it is; a stranger's is not safe to print.

    Raises:
        ConvertError: There is none, it is longer than 64 MiB, or the file cannot be read.
    """
    found = [d for d in sif.read_sif(path).descriptors if d.kind == Kind.SBOM] if looks_like_sif(path) else []
    if not found:
        raise ConvertError("has no bill of materials", where=str(path), hint="hpcbinder convert --to sif makes one")
    if found[0].size > _LIMIT:
        raise ConvertError("its bill of materials is too long to be shown", where=str(path))
    return sif.read_object(path, found[0])


def sbom_facts(header: Sif, path: Path) -> dict[str, Any] | None:
    """The first bill of materials: its object's number, its format, how many parts it lists (None if not JSON)."""
    for descriptor in header.descriptors:
        if descriptor.kind == Kind.SBOM:
            count = _count(sif.read_object(path, descriptor)) if descriptor.size <= _COUNTED else None
            form = descriptor.sbom
            return {"object": descriptor.id, "format": form.text if form else "unknown", "components": count}
    return None


def _count(raw: bytes) -> int | None:
    try:
        bill = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    lists = [bill[name] for name in _LISTS if isinstance(bill.get(name), list)] if isinstance(bill, dict) else []
    return len(lists[0]) if lists else None

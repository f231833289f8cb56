"""What a file says of itself, and what the image in it says of itself, as one plain object."""

from __future__ import annotations

import json
import struct
import uuid
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpcbinder import sif
from hpcbinder.contract import MANIFEST
from hpcbinder.errors import ConvertError
from hpcbinder.look.opened import looks_like_sif, squashfs_offset
from hpcbinder.look.sbom import sbom_facts
from hpcbinder.look.signatures import signatures
from hpcbinder.sif import Descriptor, Kind, Sif
from hpcbinder.squashfs import Image

_MAX_TEXT = 1 << 20
"""Bytes of a definition file, a script, labels: what is longer is not shown."""
_METADATA = "/.singularity.d"
_OCI_CONFIG = "oci-config.json"
_OPTIONS = {
    # squashfs-tools: {gzip,lzo,xz,lz4,zstd}_wrapper.h
    "gzip": ("<IHH", ("level", "window", "strategies")),
    "lzo": ("<II", ("algorithm", "level")),
    "xz": ("<II", ("dictionary", "filters")),
    "lz4": ("<II", ("version", "high_compression")),
    "zstd": ("<I", ("level",)),
}


def inspect(path: Path) -> dict[str, Any]:
    """Everything `hpcbinder inspect --json` prints (docs/images.md). Nothing of it is safe to print as it is.

    Raises:
        ConvertError: It is neither a SIF nor a squashfs image, or its tables are damaged.
    """
    header = sif.read_sif(path) if looks_like_sif(path) else None
    facts: dict[str, Any] = {
        "file": str(path),
        "size": path.stat().st_size,
        "format": "sif" if header else "squashfs",
        "sif": _header(header) if header else None,
        "squashfs": None,
        "squashfs_problem": None,
        "labels": {},
        "environment": {},
        "runscript": None,
        "definition": None,
        "manifest": None,
        "oci_config": None,
        "sbom": sbom_facts(header, path) if header else None,
        "signatures": [asdict(signature) for signature in signatures(path)],
    }
    try:
        offset = squashfs_offset(path)
        with Image.open(path, offset=offset) as image:
            facts["squashfs"] = {"offset": offset, **_image(image)}
            facts |= _inside(image)
    except ConvertError as error:
        if header is None:
            raise
        # A SIF without a root file system that can be read still has its objects.
        facts["squashfs_problem"] = error.message
    return facts | (_objects(header, path) if header else {})


def _header(header: Sif) -> dict[str, Any]:
    return {
        "launch": header.launch,
        "architecture": header.architecture,
        "uuid": str(uuid.UUID(bytes=header.uuid)),
        "created": header.created,
        "modified": header.modified,
        "objects": [_object(descriptor) for descriptor in header.descriptors],
    }


def _object(descriptor: Descriptor) -> dict[str, Any]:
    try:
        kind = Kind(descriptor.kind).name.lower()
    except ValueError:
        kind = f"{descriptor.kind:#x}"
    facts = {
        "id": descriptor.id,
        "kind": kind,
        "name": descriptor.name,
        "offset": descriptor.offset,
        "size": descriptor.size,
        "group": descriptor.group,
        "link": list(descriptor.link) if isinstance(descriptor.link, tuple) else descriptor.link,
        "created": descriptor.created,
        "modified": descriptor.modified,
    }
    if descriptor.partition is not None:
        system, part = descriptor.partition
        facts["file_system"] = sif.FILE_SYSTEMS.get(system, str(system))
        facts["partition"] = sif.PARTITIONS.get(part, str(part))
    if descriptor.digest is not None:
        facts["digest"] = descriptor.digest
    if descriptor.kind == Kind.SIGNATURE:
        facts["fingerprint"] = descriptor.fingerprint
    if descriptor.kind == Kind.SBOM:
        facts["format"] = descriptor.sbom.text if descriptor.sbom else None
    return facts


def _image(image: Image) -> dict[str, Any]:
    info = image.info()
    kinds: Counter[str] = Counter()
    content = names = 0
    seen: set[int] = set()
    for _, node in image.walk():
        names += 1
        if node.number not in seen:
            seen.add(node.number)
            kinds[node.kind] += 1
            content += node.size
    return {
        "compressor": info.compressor,
        "options": _options(info.compressor, info.options),
        "block_size": info.block_size,
        "bytes": info.bytes_used,
        "data_bytes": info.data,
        "content_bytes": content,
        "created": info.created,
        "inodes": {"total": len(seen), **dict(sorted(kinds.items()))},
        "names": names,
        "fragments": info.fragments,
        "owners": info.owners,
        "xattrs": info.xattrs,
        "exportable": info.exportable,
    }


def _options(compressor: str, raw: bytes) -> dict[str, int]:
    layout, names = _OPTIONS.get(compressor, ("<", ()))
    if not names or len(raw) < struct.calcsize(layout):
        return {}
    return dict(zip(names, struct.unpack_from(layout, raw), strict=True))


def _inside(image: Image) -> dict[str, Any]:
    labels = _json(_file(image, f"{_METADATA}/labels.json"))
    scripts = {}
    folder = image.locate(f"{_METADATA}/env")
    node = image.lookup(folder) if folder is not None else None
    if folder is not None and node is not None and node.kind == "directory":
        for name in image.listdir(folder)[:1000]:
            text = _file(image, f"{folder}/{name}")
            if text is not None:
                scripts[f"{_METADATA}/env/{name}"] = text
    return {
        "labels": {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {},
        "environment": scripts,
        "runscript": _file(image, f"{_METADATA}/runscript"),
        "definition": _file(image, f"{_METADATA}/Singularity"),
        "manifest": _json(_file(image, MANIFEST)),
    }


def _file(image: Image, path: str) -> str | None:
    node = image.lookup(path, follow=True)
    if node is None or node.kind != "file" or node.size > _MAX_TEXT:
        return None
    return image.read(path, _MAX_TEXT, follow=True).decode("utf-8", "replace")


def _objects(header: Sif, path: Path) -> dict[str, Any]:
    """What stands in objects of the SIF rather than in its root file system."""
    found: dict[str, Any] = {}
    for descriptor in header.descriptors:
        if descriptor.size > _MAX_TEXT:
            continue
        if descriptor.kind == Kind.DEFFILE:
            found.setdefault("definition", sif.read_object(path, descriptor).decode("utf-8", "replace"))
        elif descriptor.kind == Kind.JSON and descriptor.name == _OCI_CONFIG:
            found["oci_config"] = _json(sif.read_object(path, descriptor).decode("utf-8", "replace"))
    return found


def _json(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None

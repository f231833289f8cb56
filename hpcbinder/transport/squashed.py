"""Images that are converted already: those of the catalog, and any SIF or squashfs file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcbinder import sif
from hpcbinder.convert import read_config, sbom_format
from hpcbinder.errors import CatalogError, ConvertError, UsageError
from hpcbinder.image import Platform
from hpcbinder.model import Entry, ImageConfig
from hpcbinder.runtime import PLAIN
from hpcbinder.sif import Kind, Sif
from hpcbinder.squashfs import Image, is_squashfs, tables_digest

_OCI_CONFIG = "oci-config.json"
_LIMIT = 4 << 20
_PRIMARY, _SQUASHFS = 2, 1


@dataclass(frozen=True)
class Squashed:
    """A squashfs and what is known about the image in it.

    Attributes:
        path: File that holds it.
        offset: Where in the file it begins, bytes.
        labels: Besides those inside it.
        timestamp: Unix time (s) that new files' headers get.
        compressor: With what it is compressed.
        sbom: What is in it, in CycloneDX or SPDX JSON, if its file holds that.
    """

    path: Path
    offset: int
    config: ImageConfig
    labels: Mapping[str, str]
    timestamp: int
    compressor: str
    sbom: bytes | None = None


def is_squashed(entry: Entry) -> bool:
    """Whether an image of the catalog has a file with a squashfs that `squashed_entry` gives."""
    return any(form in entry.formats for form in (*PLAIN, "sif"))


def squashed_entry(entry: Entry) -> Squashed:
    """The squashfs of an image of the catalog.

    Raises:
        CatalogError: It has no file with one.
        ConvertError: The file is damaged.
    """
    for form in (*PLAIN, "sif"):
        if form in entry.formats:
            path = Path(entry.formats[form])
            break
    else:
        raise CatalogError(f"image {entry.id} has no file to convert")
    offset = sif.primary_partition(path)[0] if form == "sif" else 0
    return Squashed(
        path,
        offset,
        entry.config,
        {"org.hpcbinder.id": entry.id},
        entry.timestamp,
        _compressor(path, offset),
        _sbom(Path(entry.formats["sif"])) if "sif" in entry.formats else None,
    )


def squashed_file(path: Path) -> Squashed:
    """The squashfs of a SIF, or one by itself.

    Raises:
        ConvertError: It is neither, or the SIF holds something else; the message says what to do.
    """
    if not path.is_file():
        folder = path.is_dir()
        hint = "an OCI layout is oci:PATH" if folder and (path / "oci-layout").exists() else None
        raise ConvertError("is a folder, not an image" if folder else "is no ordinary file", where=str(path), hint=hint)
    if not sif.is_sif(path):
        _check_squashfs(path)
        return _described(path, 0, Platform.here().architecture, None, None)
    header = sif.read_sif(path)
    _check_partition(header, path)
    return _described(path, sif.primary_partition(path)[0], header.architecture, header, _oci_config(header, path))


def _described(
    path: Path, offset: int, architecture: str, header: Sif | None, given: Mapping[str, Any] | None
) -> Squashed:
    # No configuration is left that had a digest: what the tables say tells one image from another as well.
    digest = f"sha256:{tables_digest(path, offset).hex()}"
    with Image.open(path, offset=offset) as image:
        info = image.info()
        config = read_config(image, architecture=architecture, digest=digest, given=given)
        # The squashfs itself may bear no time; what a conversion adds bears the image's.
        added = image.lookup("/.singularity.d")
    timestamp = header.created if header is not None else added.mtime if added is not None else info.created
    return Squashed(path, offset, config, {}, timestamp, info.compressor, _sbom(path) if header else None)


def _compressor(path: Path, offset: int) -> str:
    with Image.open(path, offset=offset) as image:
        return image.info().compressor


def _check_squashfs(path: Path) -> None:
    if is_squashfs(path):
        return
    with path.open("rb") as file:
        head = file.read(512)
    archive = head[257:262] == b"ustar" or head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd"))
    hint = "an archive is docker-archive:FILE or oci-archive:FILE" if archive else None
    raise ConvertError("is neither a SIF nor a squashfs image", where=str(path), hint=hint)


def _check_partition(header: Sif, path: Path) -> None:
    """Say what to do about a SIF whose root file system is no plain squashfs."""
    for descriptor in header.descriptors:
        if descriptor.partition is None or descriptor.partition[1] != _PRIMARY:
            continue
        kind = descriptor.partition[0]
        if kind != _SQUASHFS and not header.encrypted:  # of one that is, `primary_partition` says what to do
            what = sif.FILE_SYSTEMS.get(kind, f"a file system of the kind {kind}")
            raise ConvertError(
                f"the SIF holds {what}, not squashfs", where=str(path), hint="apptainer build NEW.sif FILE makes one"
            )
        return
    if any(descriptor.kind == Kind.OCI_ROOT_INDEX for descriptor in header.descriptors):
        raise ConvertError(
            "the SIF holds OCI blobs and no root file system",
            where=str(path),
            hint="convert the image it was made from: docker://REGISTRY/NAME",
        )


def _oci_config(header: Sif, path: Path) -> Mapping[str, Any] | None:
    """The image's configuration as the SIF has it: its `config` part, as Apptainer writes it, or all of it."""
    for descriptor in header.descriptors:
        if descriptor.kind == Kind.JSON and descriptor.name == _OCI_CONFIG and descriptor.size <= _LIMIT:
            try:
                found = json.loads(sif.read_object(path, descriptor))
            except (ValueError, RecursionError):
                return None
            if isinstance(found, dict):
                inner = found.get("config")
                return inner if isinstance(inner, dict) else found
    return None


def _sbom(path: Path) -> bytes | None:
    """The bill of materials that a SIF holds, in a format that can be put into another one."""
    for descriptor in sif.read_sif(path).descriptors:
        if descriptor.kind == Kind.SBOM and descriptor.size <= 16 * _LIMIT:
            content = sif.read_object(path, descriptor)
            try:
                sbom_format(content)
            except UsageError:
                return None
            return content
    return None

"""The Singularity Image Format, version 1: a header, a table of descriptors, and the objects behind them.

Written from apptainer/sif `pkg/sif/{sif,descriptor,create,arch}.go` (format of version "01"). All integers are
little-endian and packed. Of the objects only the primary partition (the squashfs) is needed to run an image.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hpcbinder.errors import ConvertError

_LAUNCH = b"#!/usr/bin/env run-singularity\n"
_MAGIC = b"SIF_MAGIC\0"
_VERSION = b"01\0"
_HEADER = struct.Struct("<32s10s3s3s16s8q")
_DESCRIPTOR = struct.Struct("<i?III3q4q128s384s")
_PARTITION = struct.Struct("<ii3s")
_SBOM = struct.Struct("<i")
_DESCRIPTORS_AT = 4096
_SLOTS = 48
_GROUPS = 0xF0000000
_GROUP = _GROUPS | 1
_SQUASHFS = 1
_ENCRYPTED = (5, 6)
_PRIMARY_SYSTEM = 2
_NO_OWNER = 0
ALIGNMENT = 4096
"""A partition starts at a multiple of this many bytes, so that it can be loop-mounted and reflinked."""

# OCI architecture (GOARCH) -> the two digits of sif/arch.go.
_ARCHITECTURES = {
    "386": "01",
    "amd64": "02",
    "arm": "03",
    "arm64": "04",
    "ppc64": "05",
    "ppc64le": "06",
    "mips": "07",
    "mipsle": "08",
    "mips64": "09",
    "mips64le": "10",
    "s390x": "11",
    "riscv64": "12",
    "loong64": "13",
}


class Kind(enum.IntEnum):
    """What an object is (sif's DataType). A file may hold kinds that are not named here."""

    DEFFILE = 0x4001
    ENVIRONMENT = 0x4002
    LABELS = 0x4003
    PARTITION = 0x4004
    SIGNATURE = 0x4005
    JSON = 0x4006
    GENERIC = 0x4007
    CRYPTO_MESSAGE = 0x4008
    SBOM = 0x4009
    OCI_ROOT_INDEX = 0x400A
    OCI_BLOB = 0x400B


class SbomFormat(enum.IntEnum):
    """What a bill of materials is written in (sif's SBOMFormat); the names are those that `apptainer sif add` takes."""

    CYCLONEDX_JSON = 1
    CYCLONEDX_XML = 2
    GITHUB_JSON = 3
    SPDX_JSON = 4
    SPDX_RDF = 5
    SPDX_TAG_VALUE = 6
    SPDX_YAML = 7
    SYFT_JSON = 8

    @property
    def text(self) -> str:
        """`cyclonedx-json`, …."""
        return self.name.lower().replace("_", "-")


FILE_SYSTEMS = {1: "squashfs", 2: "ext3", 3: "immutable", 4: "raw", 5: "encrypted squashfs", 6: "gocryptfs squashfs"}
"""What a partition holds (sif's FSType)."""
PARTITIONS = {1: "system", 2: "primary system", 3: "data", 4: "overlay"}
"""What a partition is for (sif's PartType)."""


@dataclass(frozen=True)
class SifObject:
    """One object to write.

    Attributes:
        kind: A partition becomes the primary one: a file has exactly one.
        name: At most 127 bytes of UTF-8.
        content: The bytes; or, so that a squashfs of gigabytes is generated in place, a function that gets the open
            file and an offset (bytes), writes there and returns how many bytes it wrote.
        sbom: What a bill of materials is written in.
    """

    kind: Kind
    name: str
    content: bytes | Callable[[BinaryIO, int], int]
    sbom: SbomFormat | None = None


@dataclass(frozen=True)
class Descriptor:
    """One object of a file.

    Attributes:
        offset: Where it starts, bytes from the file's start.
        size: Bytes.
        partition: (file system, partition type) if it is a partition, as numbers of sif's Fstype and Parttype.
        group: Number of the group of objects it is in; 0 if in none.
        link: What it is about: an object's id, or a group as (0, its number); None if nothing.
        modified: Unix time (s), as `created`.
        extra: What else is said about it, 384 bytes whose meaning depends on `kind`.
    """

    kind: int
    id: int
    name: str
    offset: int
    size: int
    partition: tuple[int, int] | None
    group: int
    link: int | tuple[int, int] | None
    created: int
    modified: int
    extra: bytes

    @property
    def digest(self) -> str | None:
        """The `sha256:…` that the file says an OCI blob or index has (sif's ociBlob); None for the others."""
        if self.kind not in (Kind.OCI_BLOB, Kind.OCI_ROOT_INDEX):
            return None
        return self.extra.partition(b"\0")[0].decode("ascii", "replace")

    @property
    def sbom(self) -> SbomFormat | None:
        """What a bill of materials is written in; None of other objects, and where the number means nothing."""
        (number,) = _SBOM.unpack_from(self.extra)
        return SbomFormat(number) if self.kind == Kind.SBOM and number in SbomFormat._value2member_map_ else None

    @property
    def fingerprint(self) -> str | None:
        """The PGP key that a signature says it was made with, in hex; None of signatures with other keys."""
        if self.kind != Kind.SIGNATURE:
            return None
        # sif's signature: the hash's number, then the key's fingerprint, of 20 bytes for PGP and none for other keys.
        return self.extra[4:24].hex() if any(self.extra[4:24]) else None


@dataclass(frozen=True)
class Sif:
    """Header and descriptors of a file.

    Attributes:
        architecture: An OCI name, or "unknown".
        created: Unix time (s), as `modified`.
        tables: Where header and descriptors end: no object can begin before, in bytes.
        size: Of the whole file, bytes.
        launch: The line that makes the file a script.
    """

    architecture: str
    uuid: bytes
    created: int
    descriptors: tuple[Descriptor, ...]
    modified: int
    tables: int
    size: int
    launch: str

    @property
    def encrypted(self) -> bool:
        """Whether the root file system needs a key to be read."""
        partitions = [d.partition for d in self.descriptors if d.partition is not None]
        return any(system in _ENCRYPTED and part == _PRIMARY_SYSTEM for system, part in partitions)


def write_sif(
    out: BinaryIO,
    objects: Sequence[SifObject],
    *,
    architecture: str,
    timestamp: int,
    uuid: bytes | Callable[[], bytes] = bytes(16),
) -> int:
    """Write a whole SIF; the same arguments give the same bytes.

    Args:
        out: File opened `w+b` or `r+b`; what it held is replaced.
        objects: In the order they get in the file, exactly one of them a partition with a squashfs.
        architecture: OCI name (`amd64`).
        timestamp: Unix time (s) for every time in the file.
        uuid: 16 bytes that name the image, or what gives them once the objects are written.

    Returns:
        The file's size in bytes.

    Raises:
        ConvertError: An architecture SIF has no number for.
        ValueError: Objects that cannot be written: not one partition, more than 48, too long a name.
    """
    if architecture not in _ARCHITECTURES:
        raise ConvertError(f"SIF knows no architecture {architecture!r}", hint=f"it knows {', '.join(_ARCHITECTURES)}")
    if sum(obj.kind is Kind.PARTITION for obj in objects) != 1 or len(objects) > _SLOTS:
        raise ValueError("a SIF here has one partition and at most 48 objects")
    arch = _ARCHITECTURES[architecture].encode() + b"\0"
    table_size = _DESCRIPTOR.size * _SLOTS
    data_at = position = _DESCRIPTORS_AT + table_size
    out.truncate(0)
    table = bytearray()
    for number, obj in enumerate(objects, 1):
        name = obj.name.encode()
        if len(name) > 127:
            raise ValueError(f"the name of a SIF object is too long: {obj.name!r}")
        start, extra = position, b""
        if obj.kind is Kind.PARTITION:
            start = -(-position // ALIGNMENT) * ALIGNMENT
            extra = _PARTITION.pack(_SQUASHFS, _PRIMARY_SYSTEM, arch)
        elif obj.sbom is not None:
            extra = _SBOM.pack(obj.sbom)
        if callable(obj.content):
            size = obj.content(out, start)
        else:
            out.seek(start)
            size = out.write(obj.content)
        table += _DESCRIPTOR.pack(
            obj.kind, True, number, _GROUP, 0, start, size, start - position + size,
            timestamp, timestamp, _NO_OWNER, _NO_OWNER, name, extra,
        )  # fmt: skip
        position = start + size
    name16 = uuid() if callable(uuid) else uuid
    if len(name16) != 16:
        raise ValueError("a SIF has a uuid of 16 bytes")
    out.seek(0)
    out.write(
        _HEADER.pack(
            _LAUNCH, _MAGIC, _VERSION, arch, name16, timestamp, timestamp,
            _SLOTS - len(objects), _SLOTS, _DESCRIPTORS_AT, table_size, data_at, position - data_at,
        )
    )  # fmt: skip
    out.seek(_DESCRIPTORS_AT)
    out.write(table)
    out.flush()
    out.truncate(position)
    return position


def read_sif(path: Path) -> Sif:
    """Read and check header and descriptors; a file by a stranger may claim anything.

    Raises:
        ConvertError: Not a SIF of version 01, or one whose tables or objects reach outside the file.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except OSError as error:
        raise ConvertError(f"cannot be read: {error.strerror}", where=str(path)) from error


def primary_partition(path: Path) -> tuple[int, int]:
    """Where the squashfs that runs is: (offset, size), in bytes.

    Raises:
        ConvertError: As `read_sif`; or there is no such partition, or it is encrypted or no squashfs.
    """
    for descriptor in read_sif(path).descriptors:
        if descriptor.partition is not None and descriptor.partition[1] == _PRIMARY_SYSTEM:
            if descriptor.partition[0] in _ENCRYPTED:
                raise ConvertError(
                    f"the SIF's root file system is encrypted ({FILE_SYSTEMS[descriptor.partition[0]]})",
                    where=str(path),
                    hint="Apptainer runs it with its key (--pem-path, --passphrase); here, take what it was made from",
                )
            if descriptor.partition[0] != _SQUASHFS:
                raise ConvertError("the primary partition of the SIF is no plain squashfs", where=str(path))
            return descriptor.offset, descriptor.size
    raise ConvertError("the SIF has no primary partition", where=str(path))


def is_sif(path: Path) -> bool:
    """Whether a file says that it is a SIF.

    Raises:
        ConvertError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(42)[32:] == _MAGIC
    except OSError as error:
        raise ConvertError(f"cannot be read: {error.strerror}", where=str(path)) from error


def read_object(path: Path, descriptor: Descriptor) -> bytes:
    """An object's bytes; its size is the caller's to judge first.

    Raises:
        ConvertError: The file cannot be read, or has become shorter.
    """
    try:
        with path.open("rb") as file:
            file.seek(descriptor.offset)
            content = file.read(descriptor.size)
    except OSError as error:
        raise ConvertError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if len(content) != descriptor.size:
        raise ConvertError(f"object {descriptor.id} of the SIF is cut off", where=str(path))
    return content


def overlaps(sif: Sif) -> list[str]:
    """What of a file's objects lies on top of each other or of the tables: one line each; none in a whole file."""
    found = []
    end, before = sif.tables, "the table of descriptors"
    for descriptor in sorted(sif.descriptors, key=lambda d: (d.offset, d.size)):
        if not descriptor.size:
            continue
        if descriptor.offset < end:
            found.append(f"object {descriptor.id} of the SIF begins inside {before}")
        if descriptor.offset + descriptor.size > end:
            end, before = descriptor.offset + descriptor.size, f"object {descriptor.id}"
    return found


def _read(file: BinaryIO, path: Path) -> Sif:
    end = file.seek(0, 2)
    file.seek(0)
    raw = file.read(_HEADER.size)
    if len(raw) < _HEADER.size or raw[32:42] != _MAGIC:
        raise ConvertError("is no SIF file", where=str(path))
    launch, _, version, arch, uuid, created, modified, _, total, table_at, table_size, _, _ = _HEADER.unpack(raw)
    if version != _VERSION:
        raise ConvertError(f"is a SIF of version {version!r}; only 01 is known", where=str(path))
    if not (0 <= total <= 4096 and table_size >= total * _DESCRIPTOR.size and 0 < table_at <= end - table_size):
        raise ConvertError("the SIF's table of descriptors is damaged", where=str(path))
    file.seek(table_at)
    table = file.read(total * _DESCRIPTOR.size)
    descriptors = []
    for kind, used, number, group, link, offset, size, _, born, changed, _, _, name, extra in _DESCRIPTOR.iter_unpack(
        table
    ):
        if not used:
            continue
        if offset < 0 or size < 0 or offset + size > end:
            raise ConvertError(f"object {number} of the SIF reaches outside the file", where=str(path))
        partition = _PARTITION.unpack_from(extra)[:2] if kind == Kind.PARTITION else None
        text = name.split(b"\0", 1)[0].decode(errors="replace")
        about = (0, link & ~_GROUPS) if link & _GROUPS == _GROUPS else link or None
        descriptors.append(
            Descriptor(
                kind, number, text, offset, size, partition, group & ~_GROUPS, about, born, changed, bytes(extra)
            )
        )
    numbers = {number: name for name, number in _ARCHITECTURES.items()}
    return Sif(
        architecture=numbers.get(arch[:2].decode("ascii", "replace"), "unknown"),
        uuid=uuid,
        created=created,
        descriptors=tuple(descriptors),
        modified=modified,
        tables=table_at + total * _DESCRIPTOR.size,
        size=end,
        launch=launch.partition(b"\0")[0].decode("utf-8", "replace").rstrip("\n"),
    )

"""Whether a file is whole: a SIF's tables and digests, and everything in the squashfs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from hpcbinder import sif
from hpcbinder.errors import ConvertError
from hpcbinder.look.opened import looks_like_sif
from hpcbinder.look.signatures import signed_objects
from hpcbinder.sif import Descriptor, Kind, Sif
from hpcbinder.squashfs import Image, tables_uuid

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def check(path: Path, progress: Callable[[float], None]) -> list[str]:
    """Read all there is.

    Digests are compared where the file has them: of the objects that a signature covers, of OCI blobs, and of the
    tables of images that hpcbinder made, whose uuid follows from them. Whose a signature is, is not judged.

    Args:
        path: A SIF or a squashfs image.
        progress: Hears how much of the squashfs has been read, 0 to 1.

    Returns:
        What is wrong, one line each; nothing if the file is whole.

    Raises:
        ConvertError: It cannot be read at all, is neither a SIF nor a squashfs image, or is whole as far as one can see
            and encrypted.
    """
    if not looks_like_sif(path):
        with Image.open(path) as image:
            return image.check(progress)
    try:
        header = sif.read_sif(path)
        # Objects that lie on each other would be read again and again.
        problems = sif.overlaps(header) or list(_digests(header, path))
    except ConvertError as error:
        return [error.message]
    if header.encrypted:
        if not problems:
            sif.primary_partition(path)
        return problems
    try:
        offset, size = sif.primary_partition(path)
        with Image.open(path, offset=offset) as image:
            if image.info().bytes_used > size:
                problems.append("the squashfs is longer than its partition")
            problems += image.check(progress)
        problems += _own_uuid(header, path, offset)
    except ConvertError as error:
        problems.append(error.message)
    return problems


def _own_uuid(header: Sif, path: Path, offset: int) -> Iterator[str]:
    """Our images are named by their tables; others have a uuid that follows from nothing (version 4), or none."""
    if header.uuid[6] >> 4 == 8 and header.uuid != tables_uuid(path, offset):
        yield "the squashfs is not the one the SIF was made with: its uuid does not fit its tables"


def _digests(header: Sif, path: Path) -> Iterator[str]:
    objects = {descriptor.id: descriptor for descriptor in header.descriptors}
    wanted: dict[tuple[int, str], str] = {}
    for descriptor in header.descriptors:
        if descriptor.digest is not None:
            wanted[descriptor.id, descriptor.digest] = "its descriptor"
        elif descriptor.kind == Kind.SIGNATURE:
            for number, digest in signed_objects(header, path, descriptor):
                wanted[number, digest] = f"signature {descriptor.id}"
    actual: dict[int, str] = {}
    for (number, digest), who in wanted.items():
        if number not in objects:
            yield f"{who} is about object {number}, which is not there"
            continue
        if not _DIGEST.fullmatch(digest):
            continue  # made with another hash
        if number not in actual:
            actual[number] = _digest(path, objects[number])
        if actual[number] != digest:
            yield f"object {number} of the SIF is not what {who} says: it has {actual[number]}"


def _digest(path: Path, descriptor: Descriptor) -> str:
    digest, left = hashlib.sha256(), descriptor.size
    with path.open("rb") as file:
        file.seek(descriptor.offset)
        while left:
            chunk = file.read(min(1 << 20, left))
            if not chunk:
                raise ConvertError(f"object {descriptor.id} of the SIF is cut off", where=str(path))
            digest.update(chunk)
            left -= len(chunk)
    return f"sha256:{digest.hexdigest()}"

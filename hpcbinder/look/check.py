"""Whether a file is whole: a SIF's tables and digests, and everything in the squashfs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hpcbinder import sif
from hpcbinder.errors import ConvertError
from hpcbinder.look.opened import looks_like_sif
from hpcbinder.sif import Descriptor, Kind, Sif
from hpcbinder.squashfs import Image, tables_uuid

_MAX_SIGNATURE = 1 << 20
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
        ConvertError: It cannot be read at all, or is neither a SIF nor a squashfs image.
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
            for number, digest in _signed(header, path, descriptor):
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


def _signed(header: Sif, path: Path, signature: Descriptor) -> Iterator[tuple[int, str]]:
    """(object, digest) that a signature is about (sif, pkg/integrity/metadata.go); nothing if it cannot be read.

    Objects are counted from the first one of their group.
    """
    if signature.size > _MAX_SIGNATURE or signature.link is None:
        return
    said = _message(sif.read_object(path, signature))
    if isinstance(signature.link, tuple):
        group = signature.link[1]
    else:
        group = next((d.group for d in header.descriptors if d.id == signature.link), 0)
    first = min((d.id for d in header.descriptors if d.group == group), default=1)
    entries = said.get("objects") if isinstance(said, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            number, digest = entry.get("relativeId"), entry.get("objectDigest")
            if isinstance(number, int) and isinstance(digest, str):
                yield first + number, digest


def _message(content: bytes) -> Any:
    """What was signed: the text of a clear-signed message (RFC 4880, 7), or the payload of a DSSE envelope."""
    try:
        if content.lstrip().startswith(b"{"):
            return json.loads(base64.b64decode(json.loads(content)["payload"]))
        text = content.replace(b"\r\n", b"\n").partition(b"\n\n")[2].partition(b"\n-----BEGIN PGP SIGNATURE-----")[0]
        return json.loads(text.removeprefix(b"- ").replace(b"\n- ", b"\n"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


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

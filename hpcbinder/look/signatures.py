"""What the signatures in a SIF say: about which objects, and by which key. Whether that is so, only a key tells."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcbinder import sif
from hpcbinder.look.opened import looks_like_sif
from hpcbinder.sif import Descriptor, Kind, Sif

_MAX_SIGNATURE = 1 << 20


@dataclass(frozen=True)
class Signature:
    """One signature.

    Attributes:
        object: The number of the object it is.
        form: `PGP`, `PEM` (a DSSE envelope, of a key in PEM or a certificate), or `unknown`.
        key: Fingerprint that it says its key has, as gpg or `ssh-keygen -l` shows it; "" if it does not say. A
            stranger's text: not safe to print as it is.
    """

    object: int
    form: str
    key: str


def signatures(path: Path) -> list[Signature]:
    """The signatures of a file; none for one that is no SIF.

    Raises:
        ConvertError: It cannot be read, or its tables are damaged.
    """
    if not looks_like_sif(path):
        return []
    header = sif.read_sif(path)
    return [_signature(path, each) for each in header.descriptors if each.kind == Kind.SIGNATURE]


def signed_objects(header: Sif, path: Path, signature: Descriptor) -> Iterator[tuple[int, str]]:
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


def _signature(path: Path, descriptor: Descriptor) -> Signature:
    content = b"" if descriptor.size > _MAX_SIGNATURE else sif.read_object(path, descriptor).lstrip()
    if content.startswith(b"{"):
        return Signature(descriptor.id, "PEM", _key_id(content))
    form = "PGP" if content.startswith(b"-----BEGIN PGP SIGNED MESSAGE-----") else "unknown"
    return Signature(descriptor.id, form, (descriptor.fingerprint or "").upper())


def _key_id(envelope: bytes) -> str:
    """The key that a DSSE envelope names (secure-systems-lab/dsse, envelope.md), `SHA256:…` as sif writes it."""
    try:
        named = json.loads(envelope)["signatures"][0]["keyid"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return ""
    return named[:200] if isinstance(named, str) else ""


def _message(content: bytes) -> Any:
    """What was signed: the text of a clear-signed message (RFC 4880, 7), or the payload of a DSSE envelope."""
    try:
        if content.lstrip().startswith(b"{"):
            return json.loads(base64.b64decode(json.loads(content)["payload"]))
        text = content.replace(b"\r\n", b"\n").partition(b"\n\n")[2].partition(b"\n-----BEGIN PGP SIGNATURE-----")[0]
        return json.loads(text.removeprefix(b"- ").replace(b"\n- ", b"\n"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None

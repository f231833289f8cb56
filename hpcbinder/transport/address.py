"""What a person writes for an image: skopeo's transport names (containers-transports(5)), or an id or file of ours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.errors import UsageError
from hpcbinder.text import one_line

TRANSPORTS = {
    "docker-daemon": "NAME[:TAG]",
    "containers-storage": "NAME[:TAG]",
    "docker-archive": "PATH[:NAME[:TAG]]",
    "oci-archive": "PATH[:TAG]",
    "oci": "PATH[:TAG]",
    "docker": "//REGISTRY/NAME[:TAG]",
}
"""Transport -> what follows its colon."""

_ENGINES = ("docker-daemon", "containers-storage")
_PREFIX = re.compile(r"([a-z][a-z0-9+.-]*):")
_DIGEST = re.compile(r"(.*?):?@?(sha256:[0-9a-f]{64})", re.DOTALL)
_ENGINE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")


@dataclass(frozen=True)
class Address:
    """Where an image is.

    Attributes:
        transport: Of `TRANSPORTS`; "" for a SIF or squashfs file, or an image of the catalog.
        location: A file or folder, the name of an image in an engine or registry, an id.
        name: Which image of an archive or layout; None for the only one.
    """

    transport: str
    location: str
    name: str | None = None

    def __str__(self) -> str:
        if not self.transport:
            return self.location
        slashes = "//" if self.transport == "docker" else ""
        return f"{self.transport}:{slashes}{self.location}{f':{self.name}' if self.name else ''}"


def parse_source(text: str) -> Address:
    """Read what a person wrote.

    A path may have colons where there is a file of this name; else it ends at its first colon.

    Raises:
        UsageError: It cannot be meant; the message says what can.
    """
    shown = repr(one_line(text, 120))
    if not text or "\0" in text:
        raise UsageError("an empty name is no image" if not text else f"{shown} is no image")
    match = _PREFIX.match(text)
    if match is None or _is_there(text):
        return Address("", text)
    transport, rest = match[1], text[match.end() :]
    if transport not in TRANSPORTS:
        raise _unknown(text, transport)
    if transport == "docker":
        if not rest.startswith("//") or len(rest) == 2:
            raise UsageError(f"{shown}: behind docker: come two slashes and a name", hint=_form(transport))
        return Address(transport, rest[2:])
    if not rest:
        raise UsageError(f"{shown} names no image", hint=_form(transport))
    if transport in _ENGINES:
        if rest.startswith("["):
            raise UsageError(
                f"{shown}: storage cannot be chosen in brackets",
                hint="CONTAINERS_STORAGE_CONF names another storage, as for podman",
            )
        if not _ENGINE_NAME.fullmatch(rest):
            raise UsageError(f"{shown} names no image", hint=_form(transport))
        return Address(transport, rest)
    if _is_there(rest):
        return Address(transport, rest)
    # A digest may stand right behind the path, as engines write it.
    match = _DIGEST.fullmatch(rest)
    path, name = match.groups() if match else rest.partition(":")[::2]
    if not path:
        raise UsageError(f"{shown} names no file", hint=_form(transport))
    return Address(transport, path, name or None)


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # a name too long, a folder that is closed to us
        return False


def _unknown(text: str, transport: str) -> UsageError:
    shown = one_line(text, 120)
    if "://" in text:
        hint = f"an image of a registry is docker://{shown.partition('://')[2]}"
    else:
        hint = f"known: {', '.join(TRANSPORTS)}; an image of a registry is docker://{shown}"
    return UsageError(f"there is no file {shown!r}, and no transport {one_line(transport, 40)!r}", hint=hint)


def _form(transport: str) -> str:
    return f"write {transport}:{TRANSPORTS[transport]}"

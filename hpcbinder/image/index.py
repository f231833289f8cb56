"""Finding one image in an OCI layout, by its name and platform (OCI image spec, image-layout.md and annotations.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hpcbinder.errors import ConvertError, UsageError
from hpcbinder.image.manifest import (
    Descriptor,
    Manifest,
    Platform,
    choose,
    images,
    is_index,
    parse_descriptor,
    parse_manifest,
    platform_of,
)
from hpcbinder.image.oci import check_digest, load_json
from hpcbinder.text import one_line

T = TypeVar("T")

_NAMES = ("org.opencontainers.image.ref.name", "io.containerd.image.name")
"""Annotations that name an image in a layout: the specification's, mostly a bare tag, and containerd's and Docker's."""
_NESTED = 4
"""An index may hold an index; who nests deeper means harm."""
_SHOWN = 8


def find_manifest(
    index: dict[str, Any], wanted: str | None, platform: Platform | None, read: Callable[[Descriptor], bytes]
) -> Manifest:
    """The manifest of an image in a layout.

    Args:
        index: What `index.json` holds.
        wanted: See `pick`; also the `sha256:…` of a manifest or index in the layout, None for the only image.
        platform: What the image must be for; None for this machine's, or the only one there is.
        read: Gives a blob, checked against its digest.

    Raises:
        ConvertError: There is no such image, or several, or the layout is damaged.
    """
    descriptor = _top(index, wanted, platform)
    for _ in range(_NESTED):
        blob = parse_descriptor(descriptor)
        data = load_json(read(blob), "manifest")
        if not is_index(data):
            return parse_manifest(data, blob.digest)
        descriptor = choose(data, platform or Platform.here(), only=platform is None)
    raise ConvertError("the image's indexes are nested too deep")


def pick(found: Sequence[tuple[tuple[str, ...], T]], wanted: str | None) -> T:
    """The one that is meant among images with their names.

    Args:
        wanted: A name, whole or without the registry and `library/` that Docker's names leave out and without
            `:latest`; a tag, where that is all the name there is; or `@N`, the one at place N from 0 on. None for
            the only one.

    Raises:
        ConvertError: None has this name, or several could be meant; the message says which there are.
        UsageError: `@N` is no number.
    """
    if wanted is None:
        if len(found) == 1:
            return found[0][1]
        raise ConvertError(
            f"holds {len(found)} images where one is expected{_listed(found)}",
            hint="write the name of one, or @ and its number, behind the path and a colon" if found else None,
        )
    if wanted.startswith("@") and not wanted.startswith("@sha256:"):
        if not re.fullmatch(r"@[0-9]{1,6}", wanted):
            raise UsageError(f"{one_line(repr(wanted), 80)} is no place of an image", hint="@0 is the first one's")
        if int(wanted[1:]) >= len(found):
            raise ConvertError(f"holds no image {wanted}{_listed(found)}")
        return found[int(wanted[1:])][1]
    matches = [item for names, item in found if any(wanted in _forms(name) for name in names)]
    if len(matches) != 1:
        several = "several images" if matches else "no image"
        raise ConvertError(f"holds {several} {one_line(repr(wanted), 120)}{_listed(found)}")
    return matches[0]


def _top(index: dict[str, Any], wanted: str | None, platform: Platform | None) -> dict[str, Any]:
    """The entry of `index.json` that is meant."""
    listed = images(index)
    if wanted is not None and wanted.removeprefix("@").startswith("sha256:"):
        digest = check_digest(wanted.removeprefix("@"))
        for item in listed:
            if item.get("digest") == digest:
                return item
        raise ConvertError(f"holds no image {digest}{_listed([(_names(item), item) for item in listed])}")
    # One image has an entry for each of its tags.
    by_digest: dict[str, tuple[tuple[str, ...], list[dict[str, Any]]]] = {}
    for item in listed:
        names, items = by_digest.get(str(item.get("digest")), ((), []))
        by_digest[str(item.get("digest"))] = (tuple(dict.fromkeys((*names, *_names(item)))), [*items, item])
    # And one of several platforms may have an entry for each of them, under one name or none.
    by_name: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for number, (names, items) in enumerate(by_digest.values()):
        alone = () if platform_of(items[0]) else (f"\0{number}",)
        by_name.setdefault((*names, *alone), []).append(items[0])
    found = [(tuple(n for n in names if not n.startswith("\0")), items) for names, items in by_name.items()]
    items = pick(found, wanted)
    if len(items) == 1:
        return items[0]
    return choose({"manifests": items}, platform or Platform.here())


def _names(item: dict[str, Any]) -> tuple[str, ...]:
    annotations = item.get("annotations")
    if not isinstance(annotations, dict):
        return ()
    return tuple(dict.fromkeys(name for key in _NAMES if isinstance(name := annotations.get(key), str) and name))


def _forms(name: str) -> set[str]:
    """The ways a name may be written (distribution/reference, FamiliarName and FamiliarString)."""
    forms = {name}
    for prefix in ("docker.io/library/", "docker.io/", "localhost/"):
        forms |= {form.removeprefix(prefix) for form in forms}
    return forms | {form.removesuffix(":latest") for form in forms}


def _listed(found: Sequence[tuple[tuple[str, ...], object]]) -> str:
    if not found:
        return ""
    some = [
        one_line(f"{', '.join(names[:3]) or 'without a name'} (@{n})", 200)
        for n, (names, _) in enumerate(found[:_SHOWN])
    ]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f": {', '.join(some)}{more}"

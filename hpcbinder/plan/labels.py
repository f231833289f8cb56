"""Labels of an image (image contract, point 7)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hpcbinder.contract import LABEL_PREFIX, MANIFEST
from hpcbinder.model import BaseRef, Checkout, PackRef
from hpcbinder.text import printable


def labels_of(checkout: Checkout, refs: Sequence[PackRef], base: BaseRef, more: Mapping[str, str]) -> dict[str, str]:
    """The OCI image spec's own labels (annotations.md) where it has one for something, else ours.

    Args:
        refs: The buildpacks that took part.
        more: Others of ours, without their prefix. Empty ones are left out.
    """
    labels = {
        "org.opencontainers.image.title": checkout.name,
        "org.opencontainers.image.source": checkout.source,
        "org.opencontainers.image.revision": checkout.commit or "",
        "org.opencontainers.image.base.name": base.image.partition("@")[0] or base.name,
        "org.opencontainers.image.base.digest": base.image.partition("@")[2],
        f"{LABEL_PREFIX}ref": checkout.ref,
        f"{LABEL_PREFIX}subdir": checkout.subdir,
        f"{LABEL_PREFIX}uncommitted": "true" if checkout.uncommitted else "",
        f"{LABEL_PREFIX}buildpacks": " ".join(f"{ref.name}/{ref.version}" for ref in refs),
        f"{LABEL_PREFIX}manifest": MANIFEST,
        **{f"{LABEL_PREFIX}{name}": value for name, value in more.items()},
    }
    return {name: _label(value) for name, value in labels.items() if value}


def _label(text: str) -> str:
    """A label's value: one line (a Dockerfile has no way to write another), and not without end."""
    return re.sub(r"[\x85\u2028\u2029]", lambda match: repr(match[0])[1:-1], printable(text))[:4096]

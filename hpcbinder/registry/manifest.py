"""Manifests and indexes as registries give them: what is wrong with one is the registry's error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hpcbinder import image
from hpcbinder.errors import ConvertError, RegistryError
from hpcbinder.image import Descriptor, Manifest, Platform, is_index

__all__ = [
    "ACCEPTED",
    "OCI_CONFIG",
    "OCI_LAYER",
    "OCI_MANIFEST",
    "Descriptor",
    "Manifest",
    "Platform",
    "choose",
    "described",
    "dump_manifest",
    "is_index",
    "parse_manifest",
]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPTED = ", ".join((OCI_MANIFEST, _OCI_INDEX, _DOCKER_MANIFEST, _DOCKER_LIST))

_ANNOTATED = "org.opencontainers.image."
"""Beginning of the labels that the image spec (annotations.md) has as annotations of manifests too."""


def dump_manifest(config: Descriptor, layers: Sequence[Descriptor], labels: Mapping[str, str]) -> bytes:
    """Write the manifest of an image whose layers are gzipped: one and the same for equal ones.

    Args:
        layers: From the lowest to the topmost.
        labels: The image's; those that are standard annotations become some.
    """
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(OCI_CONFIG, config),
        "layers": [described(OCI_LAYER, layer) for layer in layers],
        "annotations": {name: text for name, text in labels.items() if name.startswith(_ANNOTATED) and text},
    }
    return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode("ascii")


def described(kind: str, blob: Descriptor) -> dict[str, object]:
    """The descriptor of a blob (image spec, descriptor.md) with the media type `kind`."""
    return {"mediaType": kind, "digest": blob.digest, "size": blob.size}


def choose(data: dict[str, Any], platform: Platform, where: str) -> str:
    """The digest of the manifest that an index has for a platform.

    Raises:
        RegistryError: It has none.
    """
    with _theirs(where):
        return image.check_digest(image.choose(data, platform).get("digest"))


def parse_manifest(data: dict[str, Any], digest: str, where: str) -> Manifest:
    """Read a manifest.

    Raises:
        RegistryError: It is of an older form, is none, or has layers that are elsewhere.
    """
    with _theirs(where):
        return image.parse_manifest(data, digest)


@contextmanager
def _theirs(where: str) -> Iterator[None]:
    try:
        yield
    except ConvertError as error:
        raise RegistryError(error.message, where=where, hint=error.hint) from error

"""Manifests and indexes: which blobs an image is made of (OCI image spec, manifest.md and image-index.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hpcbinder.errors import ConvertError, RegistryError
from hpcbinder.image import check_digest
from hpcbinder.text import one_line

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPTED = ", ".join((OCI_MANIFEST, _OCI_INDEX, _DOCKER_MANIFEST, _DOCKER_LIST))

_LAYERS = 1024
"""More than any engine can stack (overlayfs takes 500)."""
_CONFIG_LIMIT = 8 << 20


@dataclass(frozen=True)
class Platform:
    """What an image is for, in OCI terms (Go's GOOS and GOARCH)."""

    architecture: str
    os: str = "linux"

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}"


@dataclass(frozen=True)
class Descriptor:
    """A blob.

    Attributes:
        size: Bytes it has in the registry.
    """

    digest: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The blobs of one image.

    Attributes:
        digest: `sha256:…` of the manifest.
        layers: From the lowest to the topmost, compressed as they are.
    """

    digest: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


def is_index(data: dict[str, Any]) -> bool:
    """Whether it lists manifests, rather than layers."""
    return "manifests" in data and "layers" not in data


def choose(data: dict[str, Any], platform: Platform, where: str) -> str:
    """The digest of the manifest that an index has for a platform.

    Raises:
        RegistryError: It has none.
    """
    offered = []
    for item in _objects(data.get("manifests"), where):
        about = item.get("platform")
        about = about if isinstance(about, dict) else {}
        found = Platform(str(about.get("architecture", "")), str(about.get("os", "")))
        if found == platform:
            return _digest(item, where)
        if found.os != "unknown":  # BuildKit's attestations
            offered.append(one_line(str(found), 40))
    some = ", ".join(dict.fromkeys(offered[:8])) or "nothing"
    raise RegistryError(f"the image is not there for {platform}, only for {some}", where=where)


def parse_manifest(data: dict[str, Any], digest: str, where: str) -> Manifest:
    """Read a manifest.

    Raises:
        RegistryError: It is of an older form, is none, or has layers that are elsewhere.
    """
    if data.get("schemaVersion") != 2 or not isinstance(data.get("config"), dict):
        raise RegistryError("the manifest is of a form that is no longer read (or of none)", where=where)
    layers = _objects(data.get("layers"), where)
    if len(layers) > _LAYERS:
        raise RegistryError(f"the image has {len(layers)} layers", where=where)
    for layer in layers:
        kind = str(layer.get("mediaType", ""))
        if "tar" not in kind or any(word in kind for word in ("foreign", "nondistributable", "encrypted")):
            raise RegistryError(f"the image has a layer of the kind {one_line(repr(kind), 100)}", where=where)
    config = _descriptor(data["config"], where)
    if config.size > _CONFIG_LIMIT:
        raise RegistryError("the image's configuration is too large for one", where=where)
    return Manifest(digest, config, tuple(_descriptor(layer, where) for layer in layers))


def _objects(value: object, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RegistryError("the manifest is damaged", where=where)
    return value


def _descriptor(data: dict[str, Any], where: str) -> Descriptor:
    size = data.get("size")
    if type(size) is not int or not 0 <= size < 1 << 50:
        raise RegistryError("the manifest is damaged: a blob without a size", where=where)
    return Descriptor(_digest(data, where), size)


def _digest(data: dict[str, Any], where: str) -> str:
    try:
        return check_digest(data.get("digest"))
    except ConvertError as error:
        raise RegistryError(error.message, where=where) from error

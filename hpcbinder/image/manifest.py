"""Manifests and indexes: which blobs an image is made of (OCI image spec, manifest.md and image-index.md)."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any

from hpcbinder.errors import ConvertError
from hpcbinder.image.oci import check_digest
from hpcbinder.text import one_line

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le"}
"""Machine name (uname -m) -> OCI architecture."""

_ATTESTATION = "vnd.docker.reference.type"
"""Annotation of BuildKit's provenance manifests, which are no images."""
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

    @classmethod
    def here(cls) -> Platform:
        """This machine's."""
        machine = platform.machine()
        return cls(ARCHITECTURES.get(machine, machine))


@dataclass(frozen=True)
class Descriptor:
    """A blob.

    Attributes:
        size: Bytes it has where it is stored.
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


def images(data: dict[str, Any]) -> list[dict[str, Any]]:
    """What an index lists, without the attestations about images.

    Raises:
        ConvertError: It is damaged.
    """
    return [item for item in _objects(data.get("manifests")) if not _is_attestation(item)]


def choose(data: dict[str, Any], platform: Platform, *, only: bool = False) -> dict[str, Any]:
    """The descriptor that an index has for a platform.

    Args:
        only: If it lists a single image, take that, whatever it is for.

    Raises:
        ConvertError: It has none.
    """
    listed = images(data)
    offered = []
    for item in listed:
        found = platform_of(item)
        if found == platform:
            return item
        offered.append(one_line(str(found or "an unnamed platform"), 40))
    if len(listed) == 1 and (only or platform_of(listed[0]) is None):
        return listed[0]
    some = ", ".join(dict.fromkeys(offered[:8])) or "nothing"
    raise ConvertError(f"the image is not there for {platform}, only for {some}")


def platform_of(item: dict[str, Any]) -> Platform | None:
    """What a descriptor says its image is for, None if it does not say."""
    about = item.get("platform")
    if not isinstance(about, dict) or not about.get("architecture"):
        return None
    return Platform(str(about["architecture"]), str(about.get("os", "")))


def parse_manifest(data: dict[str, Any], digest: str) -> Manifest:
    """Read a manifest.

    Raises:
        ConvertError: It is of an older form, is none, or has layers that are elsewhere.
    """
    if data.get("schemaVersion") != 2 or not isinstance(data.get("config"), dict):
        raise ConvertError("the manifest is of a form that is no longer read (or of none)")
    layers = _objects(data.get("layers"))
    if len(layers) > _LAYERS:
        raise ConvertError(f"the image has {len(layers)} layers")
    for layer in layers:
        kind = str(layer.get("mediaType", ""))
        if "tar" not in kind or any(word in kind for word in ("foreign", "nondistributable", "encrypted")):
            raise ConvertError(f"the image has a layer of the kind {one_line(repr(kind), 100)}")
    config = parse_descriptor(data["config"])
    if config.size > _CONFIG_LIMIT:
        raise ConvertError("the image's configuration is too large for one")
    return Manifest(digest, config, tuple(parse_descriptor(layer) for layer in layers))


def parse_descriptor(data: dict[str, Any]) -> Descriptor:
    """Read a descriptor (OCI image spec, descriptor.md).

    Raises:
        ConvertError: It is damaged, or its digest is no SHA-256.
    """
    size = data.get("size")
    if type(size) is not int or not 0 <= size < 1 << 50:
        raise ConvertError("the manifest is damaged: a blob without a size")
    return Descriptor(check_digest(data.get("digest")), size)


def _objects(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ConvertError("the manifest is damaged")
    return value


def _is_attestation(item: dict[str, Any]) -> bool:
    annotations = item.get("annotations")
    about = platform_of(item)
    # BuildKit marks them with either, the specification with none.
    return (isinstance(annotations, dict) and _ATTESTATION in annotations) or (
        about is not None and about.os == "unknown"
    )

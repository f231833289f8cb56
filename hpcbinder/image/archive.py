"""Images in a tar file: what `docker save` writes, in its old form, in its newer one, and as an OCI layout.

The old form is Docker's `image/spec/v1.2.md` (`manifest.json`, layers as `ID/layer.tar`, repeated ones as links); the
newer one (Docker 25) is an OCI layout (image spec, image-layout.md) with `manifest.json` beside it; `podman save
--format oci-archive` and `skopeo copy … oci-archive:` write the layout alone. Nothing is unpacked: a layer is a slice
of the file.
"""

from __future__ import annotations

import hashlib
import io
import posixpath
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from hpcbinder.errors import ConvertError
from hpcbinder.image.compression import uncompressed
from hpcbinder.image.oci import check_digest, load_json, parse_config
from hpcbinder.model import ImageConfig

_METADATA_LIMIT = 8 << 20
"""Bytes of the largest manifest or configuration that is read; registries allow 4 MiB."""

_ATTESTATION = "vnd.docker.reference.type"
"""Annotation of BuildKit's provenance manifests, which are no images."""


class DockerArchive:
    """The one image in an archive; implements `OciImage`.

    Args:
        path: The tar file, uncompressed. It is opened anew for each use.

    Raises:
        ConvertError: It is no such archive, holds none or several images, or its configuration is not the one its
            digest promises.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as file:
            self._members = self._scan(file)
            raw, blobs = self._image(file)
        self.config: ImageConfig = parse_config(raw)
        if len(blobs) != len(self.config.diff_ids):
            raise self._error(
                f"the image's manifest names {len(blobs)} layers, its configuration {len(self.config.diff_ids)}"
            )
        self._blobs = dict(zip(self.config.diff_ids, blobs, strict=True))

    def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
        """See `OciImage.layers`; gzip and zstd are undone."""
        missing = sorted(set(wanted) - self._blobs.keys())
        if missing:
            raise self._error(f"the image has no layer {missing[0]}")
        for diff_id, (offset, size) in sorted(
            ((diff_id, self._find(name)) for diff_id, name in self._blobs.items() if diff_id in wanted),
            key=lambda item: item[1],
        ):
            with self._open() as file, uncompressed(_Slice(file, offset, size), str(self._path)) as stream:
                yield diff_id, stream

    def _open(self) -> BinaryIO:
        try:
            return self._path.open("rb")
        except OSError as error:
            raise self._error(f"cannot be read: {error.strerror}") from error

    def _scan(self, file: BinaryIO) -> dict[str, tuple[int, int] | str]:
        """Member's name -> (offset, size) of its content, or the name it links to."""
        members: dict[str, tuple[int, int] | str] = {}
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    name = posixpath.normpath(member.name)
                    if member.isreg() and not member.issparse():
                        members[name] = (member.offset_data, member.size)
                    elif member.issym():
                        members[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                    elif member.islnk():
                        members[name] = posixpath.normpath(member.linkname)
        except (tarfile.TarError, OSError, ValueError) as error:
            raise self._error("is no tar archive, or a damaged one") from error
        size = file.seek(0, 2)
        if any(isinstance(place, tuple) and not 0 <= place[1] <= size - place[0] for place in members.values()):
            raise self._error("the archive is cut off")
        return members

    def _find(self, name: object) -> tuple[int, int]:
        if not isinstance(name, str):
            raise self._error("the manifest names a file by what is no text")
        place = self._members.get(posixpath.normpath(name))
        if isinstance(place, str):  # Docker links a repeated layer to the first one, never to another link
            place = self._members.get(place)
        if not isinstance(place, tuple):
            raise self._error(f"the archive does not hold {name[:200]!r}, which its manifest names")
        return place

    def _read(self, file: BinaryIO, name: object) -> bytes:
        offset, size = self._find(name)
        if size > _METADATA_LIMIT:
            raise self._error(f"{str(name)[:200]!r} in the archive is too large for what it is")
        file.seek(offset)
        return file.read(size)

    def _image(self, file: BinaryIO) -> tuple[bytes, list[str]]:
        """The raw configuration, and the members its layers are in."""
        if "manifest.json" in self._members:
            listed = load_json(b'{"images":%s}' % self._read(file, "manifest.json"), "manifest")["images"]
            image = self._only(listed if isinstance(listed, list) else [])
            raw = self._read(file, image.get("Config"))
            promised = posixpath.basename(str(image["Config"])).removesuffix(".json")
            if len(promised) == 64 and hashlib.sha256(raw).hexdigest() != promised:
                raise self._error("the image's configuration is not the one its digest promises")
            return raw, [name for name in _list(image, "Layers") if isinstance(name, str)]
        if "index.json" in self._members:
            return self._layout_image(file, load_json(self._read(file, "index.json"), "index"))
        raise self._error("holds no image: neither manifest.json nor index.json")

    def _layout_image(self, file: BinaryIO, index: dict[str, Any]) -> tuple[bytes, list[str]]:
        for _ in range(4):  # an index may hold an index; who nests deeper means harm
            descriptor = self._only([m for m in _list(index, "manifests") if not _is_attestation(m)])
            manifest = load_json(self._blob(file, descriptor), "manifest")
            if "config" in manifest:
                raw = self._blob(file, manifest["config"])
                return raw, [_blob_name(layer) for layer in _list(manifest, "layers")]
            index = manifest
        raise self._error("the image's indexes are nested too deep")

    def _blob(self, file: BinaryIO, descriptor: object) -> bytes:
        name = _blob_name(descriptor)
        raw = self._read(file, name)
        if hashlib.sha256(raw).hexdigest() != posixpath.basename(name):
            raise self._error(f"{name} in the archive is not what its digest promises")
        return raw

    def _only(self, images: list[Any]) -> dict[str, Any]:
        if len(images) != 1 or not isinstance(images[0], dict):
            raise self._error(f"holds {len(images)} images where one is expected", hint="save one image, by its tag")
        return images[0]

    def _error(self, message: str, *, hint: str | None = None) -> ConvertError:
        return ConvertError(message, where=str(self._path), hint=hint)


def _list(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    return value if isinstance(value, list) else []


def _is_attestation(descriptor: object) -> bool:
    annotations = descriptor.get("annotations") if isinstance(descriptor, dict) else None
    return isinstance(annotations, dict) and _ATTESTATION in annotations


def _blob_name(descriptor: object) -> str:
    digest = check_digest(descriptor.get("digest") if isinstance(descriptor, dict) else None)
    return f"blobs/{digest.replace(':', '/')}"


class _Slice(io.RawIOBase):
    """A part of an open file, read forward. The file belongs to it alone."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        super().__init__()
        self._file = file
        self._left = size
        file.seek(offset)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._left]
        count = cast(io.BufferedReader, self._file).readinto(view)
        self._left -= count
        return count

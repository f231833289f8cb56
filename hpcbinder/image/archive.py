"""Images in a tar file: what `docker save` writes, in its old form, in its newer one, and as an OCI layout.

The old form is Docker's `image/spec/v1.2.md` (`manifest.json`, layers as `ID/layer.tar`, repeated ones as links); the
newer one (Docker 25) is an OCI layout (image spec, image-layout.md) with `manifest.json` beside it; `podman save
--format oci-archive` and `skopeo copy … oci-archive:` write the layout alone. Nothing is unpacked: a layer is a slice
of the file.

`docker save` writes one tag or several, of one image or several, and `docker load` takes the file compressed, too.
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
from hpcbinder.image.index import find_manifest, pick
from hpcbinder.image.manifest import Descriptor, Platform
from hpcbinder.image.oci import check_digest, load_json, parse_config
from hpcbinder.model import ImageConfig

_MOST_MEMBERS = 100_000
"""A layer is one or three of them, and an image has at most some hundred layers."""

_METADATA_LIMIT = 8 << 20
"""Bytes of the largest manifest or configuration that is read; registries allow 4 MiB."""


class DockerArchive:
    """An image in an archive; implements `OciImage`.

    Args:
        path: The tar file, uncompressed. It is opened anew for each use.
        name: Which image (see `index.pick`); None for the only one.
        platform: What it must be for, where there is one for each of several; None for this machine's, or the only one.
        oci: Take it for an OCI layout if it can be read as both.
        where: What to call it in errors; its path if None.

    Raises:
        ConvertError: It is no such archive, does not hold this image, holds several and none is chosen, or its
            configuration is not the one its digest promises.
    """

    def __init__(
        self,
        path: Path,
        name: str | None = None,
        platform: Platform | None = None,
        *,
        oci: bool = False,
        where: str | None = None,
    ) -> None:
        self._path = path
        self._where = where or str(path)
        with self._open() as file:
            self._members = self._scan(file)
            try:
                self.raw_config, blobs = self._image(file, name, platform, oci)
            except ConvertError as error:
                raise (error if error.where else self._error(error.message, hint=error.hint)) from error
        self.config: ImageConfig = parse_config(self.raw_config)
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
            with self._open() as file, uncompressed(_Slice(file, offset, size), self._where) as stream:
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
                for number, member in enumerate(tar):
                    cast(Any, tar).members.clear()  # which nothing here reads, and which would only grow
                    if number == _MOST_MEMBERS:
                        raise self._error(f"has more than {_MOST_MEMBERS} members, and so is no image")
                    name = posixpath.normpath(member.name)
                    if member.isreg() and not member.issparse():
                        members[name] = (member.offset_data, member.size)
                    elif member.issym():
                        members[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                    elif member.islnk():
                        members[name] = posixpath.normpath(member.linkname)
        except ConvertError:
            raise
        except Exception as error:  # of many kinds: OverflowError and MemoryError for sizes, RecursionError for names
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

    def _image(self, file: BinaryIO, name: str | None, platform: Platform | None, oci: bool) -> tuple[bytes, list[str]]:
        """The raw configuration, and the members its layers are in."""
        if "index.json" in self._members and (oci or "manifest.json" not in self._members):
            index = load_json(self._read(file, "index.json"), "index")
            manifest = find_manifest(index, name, platform, lambda blob: self._blob(file, blob))
            return self._blob(file, manifest.config), [_blob_name(layer) for layer in manifest.layers]
        if "manifest.json" not in self._members:
            raise self._error("holds no image: neither manifest.json nor index.json")
        listed = load_json(b'{"images":%s}' % self._read(file, "manifest.json"), "manifest")["images"]
        image = self._chosen(listed if isinstance(listed, list) else [], name)
        raw = self._read(file, image.get("Config"))
        promised = posixpath.basename(str(image["Config"])).removesuffix(".json")
        if len(promised) == 64 and hashlib.sha256(raw).hexdigest() != promised:
            raise self._error("the image's configuration is not the one its digest promises")
        return raw, [layer for layer in _list(image, "Layers") if isinstance(layer, str)]

    def _chosen(self, listed: list[Any], name: str | None) -> dict[str, Any]:
        found: list[tuple[tuple[str, ...], dict[str, Any]]] = []
        for image in listed:
            if not isinstance(image, dict):
                raise self._error("manifest.json is damaged: it lists what is no image")
            found.append((tuple(tag for tag in _list(image, "RepoTags") if isinstance(tag, str)), image))
        return pick(found, name)

    def _blob(self, file: BinaryIO, blob: Descriptor) -> bytes:
        name = _blob_name(blob)
        raw = self._read(file, name)
        if len(raw) != blob.size or f"sha256:{hashlib.sha256(raw).hexdigest()}" != blob.digest:
            raise self._error(f"{name} in the archive is not what its digest promises")
        return raw

    def _error(self, message: str, *, hint: str | None = None) -> ConvertError:
        return ConvertError(message, where=self._where, hint=hint)


def _list(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    return value if isinstance(value, list) else []


def _blob_name(blob: Descriptor) -> str:
    return f"blobs/{check_digest(blob.digest).replace(':', '/')}"


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

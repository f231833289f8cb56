"""Images in an OCI layout: a folder with `oci-layout`, `index.json` and blobs (OCI image spec, image-layout.md)."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from hpcbinder.errors import ConvertError
from hpcbinder.image.compression import uncompressed
from hpcbinder.image.index import find_manifest
from hpcbinder.image.manifest import Descriptor, Platform
from hpcbinder.image.oci import check_digest, load_json, parse_config
from hpcbinder.model import ImageConfig

_METADATA_LIMIT = 8 << 20
"""Bytes of the largest index, manifest or configuration that is read; registries allow 4 MiB."""


class OciLayout:
    """An image in a layout; implements `OciImage`.

    Args:
        path: The folder. Links in it that lead out of it are not followed.
        name: Which image: its tag or name, or the `sha256:…` of its manifest (see `index.find_manifest`); None for the
            only one.
        platform: What it must be for; None for this machine's, or the only one there is.

    Raises:
        ConvertError: It is no layout, does not hold this image, or is damaged.
    """

    def __init__(self, path: Path, name: str | None = None, platform: Platform | None = None) -> None:
        self._path = path
        try:
            self._root = path.resolve(strict=True)
        except FileNotFoundError as error:
            raise self._error("is not there") from error
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "links lead in a circle"
            raise self._error(f"cannot be read: {reason}") from error
        try:
            self._check_version()
            index = load_json(self._read("index.json"), "index")
            manifest = find_manifest(index, name, platform, self._blob)
            self.raw_config = self._blob(manifest.config)
            self.config: ImageConfig = parse_config(self.raw_config)
        except ConvertError as error:
            raise (error if error.where else self._error(error.message, hint=error.hint)) from error
        if len(manifest.layers) != len(self.config.diff_ids):
            raise self._error(
                f"the image's manifest names {len(manifest.layers)} layers, its configuration "
                f"{len(self.config.diff_ids)}"
            )
        self._blobs = dict(zip(self.config.diff_ids, manifest.layers, strict=True))

    def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
        """See `OciImage.layers`; gzip and zstd are undone."""
        if missing := sorted(set(wanted) - self._blobs.keys()):
            raise self._error(f"the image has no layer {missing[0]}")
        for diff_id, blob in self._blobs.items():
            if diff_id in wanted:
                with self._open_blob(blob) as file, uncompressed(file, str(self._path)) as stream:
                    yield diff_id, stream

    def _check_version(self) -> None:
        version = load_json(self._read("oci-layout"), "oci-layout file").get("imageLayoutVersion")
        if not isinstance(version, str) or not version.startswith("1."):
            raise self._error("is an OCI layout of a version that is not known")

    def _blob(self, blob: Descriptor) -> bytes:
        with self._open_blob(blob) as file:
            if blob.size > _METADATA_LIMIT:
                raise self._error(f"{blob.digest} is too large for what it is")
            raw = file.readall()
        if raw is None or f"sha256:{hashlib.sha256(raw).hexdigest()}" != blob.digest:
            raise self._error(f"{blob.digest} is not what its digest promises")
        return raw

    def _open_blob(self, blob: Descriptor) -> io.FileIO:
        file = self._open(f"blobs/{check_digest(blob.digest).replace(':', '/')}")
        if os.fstat(file.fileno()).st_size != blob.size:
            file.close()
            raise self._error(f"{blob.digest} has not the size that the manifest says")
        return file

    def _read(self, name: str) -> bytes:
        with self._open(name) as file:
            if os.fstat(file.fileno()).st_size > _METADATA_LIMIT:
                raise self._error(f"{name} is too large for what it is")
            return cast(bytes, file.read(_METADATA_LIMIT))

    def _open(self, name: str) -> io.FileIO:
        try:
            path = (self._root / name).resolve(strict=True)
            if not path.is_relative_to(self._root):
                raise self._error(f"{name} is a link that leads out of the layout")
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, RuntimeError) as error:
            if name == "oci-layout":
                raise self._error("is no OCI layout: it has no file oci-layout") from error
            reason = error.strerror if isinstance(error, OSError) else "links lead in a circle"
            raise self._error(f"{name} cannot be read: {reason}") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise self._error(f"{name} is no file")
        return io.FileIO(descriptor, "rb")

    def _error(self, message: str, *, hint: str | None = None) -> ConvertError:
        return ConvertError(message, where=str(self._path), hint=hint)

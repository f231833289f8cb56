"""OCI image layouts (image-layout.md of the OCI image specification, 1.0), written layer by layer.

Small on purpose: what is measured reads them, so they are written by none of the programs that are compared.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

TAG = "latest"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_TAR = "application/vnd.oci.image.layer.v1.tar"
_LAYER = f"{_TAR}+gzip"


@dataclass(frozen=True)
class Layer:
    """One layer of an image on disk.

    Attributes:
        blob: The compressed tar.
        digest: `sha256:…` of the blob.
        diff_id: `sha256:…` of the tar.
        media_type: As the manifest says.
    """

    blob: Path
    digest: str
    diff_id: str
    media_type: str = _LAYER


@dataclass(frozen=True)
class Contents:
    """What an image's layers hold together, files of lower layers that upper ones replace counted twice.

    Attributes:
        layers: How many.
        files: Members of their tars, directories included.
        size: Bytes of the tars' members.
    """

    layers: int
    files: int
    size: int


class _Hashing(io.RawIOBase):
    """Writes through, and hashes what passes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hash.update(data)
        return self._file.write(data)

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class Layout:
    """An image in a folder.

    Args:
        folder: Made by `create`, or there already.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blobs = folder / "blobs/sha256"

    @property
    def address(self) -> str:
        """What skopeo, podman and umoci call it, without `oci:`. (Apptainer takes the folder alone.)"""
        return f"{self.folder}:{TAG}"

    @property
    def config(self) -> dict[str, Any]:
        """The image's configuration."""
        return self._json(self._manifest["config"]["digest"])

    @property
    def layers(self) -> list[Layer]:
        """From the lowest to the topmost."""
        diff_ids = self.config["rootfs"]["diff_ids"]
        blobs = self._manifest["layers"]
        return [
            Layer(self._blob(blob["digest"]), blob["digest"], diff_id, blob["mediaType"])
            for blob, diff_id in zip(blobs, diff_ids, strict=True)
        ]

    def contents(self) -> Contents:
        """Count what the layers hold (reads them all)."""
        files = size = 0
        for layer in self.layers:
            with tarfile.open(layer.blob, "r|*") as tar:
                for member in tar:
                    files, size = files + 1, size + member.size
        return Contents(len(self.layers), files, size)

    def create(self, layers: list[Layer], config: dict[str, Any] | None = None) -> None:
        """Make the image of layers, which are linked where that is possible.

        Args:
            layers: From the lowest to the topmost.
            config: `config` of the image's configuration: environment, entry point and so on.
        """
        self._blobs.mkdir(parents=True, exist_ok=True)
        for layer in layers:
            target = self._blob(layer.digest)
            if not target.exists():
                try:
                    target.hardlink_to(layer.blob)
                except OSError:
                    shutil.copyfile(layer.blob, target)
        configuration = {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
        descriptors = [
            {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.blob.stat().st_size}
            for layer in layers
        ]
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._put(configuration, _CONFIG),
            "layers": descriptors,
        }
        named = {**self._put(manifest, _MANIFEST), "annotations": {"org.opencontainers.image.ref.name": TAG}}
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
        (self.folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    @property
    def _manifest(self) -> dict[str, Any]:
        index = json.loads((self.folder / "index.json").read_text())
        return self._json(index["manifests"][0]["digest"])

    def _blob(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    def _json(self, digest: str) -> dict[str, Any]:
        return cast(dict[str, Any], json.loads(self._blob(digest).read_text()))

    def _put(self, value: dict[str, Any], media_type: str) -> dict[str, Any]:
        data = json.dumps(value, sort_keys=True).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._blob(digest).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}


def uncompressed_layer(layer: Layer, folder: Path) -> Layer:
    """The same layer without its gzip.

    Args:
        folder: Existing folder for the blob.
    """
    blob = folder / f"{layer.diff_id.removeprefix('sha256:')}.layer"
    with gzip.open(layer.blob) as packed, blob.open("wb") as tar:
        shutil.copyfileobj(packed, tar, 1 << 20)
    return Layer(blob, layer.diff_id, layer.diff_id, _TAR)


@contextmanager
def new_layer(folder: Path, level: int = 6) -> Iterator[tuple[tarfile.TarFile, list[Layer]]]:
    """Write a layer: add members to the tar; after the block the list holds the layer.

    Args:
        folder: Existing folder for the blob.
        level: Of gzip.
    """
    unfinished = folder / "unfinished.layer"
    done: list[Layer] = []
    with unfinished.open("wb") as file:
        packed = _Hashing(file)
        with gzip.GzipFile("", "wb", level, cast(IO[bytes], packed), mtime=0) as compressed:
            plain = _Hashing(cast(IO[bytes], compressed))
            with tarfile.open(
                fileobj=cast(IO[bytes], plain), mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 16
            ) as tar:
                yield tar, done
    blob = folder / f"{packed.digest.removeprefix('sha256:')}.layer"
    unfinished.replace(blob)
    done.append(Layer(blob, packed.digest, plain.digest))

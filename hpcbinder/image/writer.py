"""Writing an archive that `docker load`, `podman load` and `skopeo copy docker-archive:` take."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from hpcbinder.errors import ConvertError
from hpcbinder.image.oci import check_digest


def write_docker_archive(
    out: BinaryIO, config: Mapping[str, Any], layers: Sequence[tuple[str, Path]], tag: str | None
) -> str:
    """Write an image as a docker-archive (Docker's `image/spec/v1.2.md`); the same arguments give the same bytes.

    Args:
        out: Where the tar goes; only written to.
        config: The image configuration (OCI image spec, config.md). Its `rootfs` is set from `layers`.
        layers: (DiffID, uncompressed tar file), from the lowest to the topmost.
        tag: `name:tag` the image gets when loaded, or None for no name.

    Returns:
        The image's id, `sha256:…` of the configuration as written.

    Raises:
        ConvertError: A layer's content is not what its DiffID says.
        OSError: A file cannot be read or written.
    """
    diff_ids = [check_digest(diff_id) for diff_id, _ in layers]
    whole = {**config, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    raw = json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()
    image_id = hashlib.sha256(raw).hexdigest()
    manifest = [
        {
            "Config": f"{image_id}.json",
            "RepoTags": [tag] if tag else None,
            "Layers": [_layer_name(diff_id) for diff_id in diff_ids],
        }
    ]
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for diff_id, path in dict(layers).items():
            _add_layer(tar, diff_id, path)
        _add(tar, f"{image_id}.json", raw)
        _add(tar, "manifest.json", json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode())
    return f"sha256:{image_id}"


def _layer_name(diff_id: str) -> str:
    return f"{diff_id.removeprefix('sha256:')}.tar"


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_member(name, len(content)), io.BytesIO(content))


def _add_layer(tar: tarfile.TarFile, diff_id: str, path: Path) -> None:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        reader = _Hashing(file)
        tar.addfile(_member(_layer_name(diff_id), size), reader)
    if reader.digest() != diff_id:
        raise ConvertError(f"the layer's content is {reader.digest()}, not {diff_id}", where=str(path))


class _Hashing:
    """A file that remembers the SHA-256 of what was read from it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self._hash.update(block)
        return block

    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

"""Layers and images made by hand, for the tests of this folder."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from hpcbinder.image import parse_config
from hpcbinder.model import ImageConfig

MTIME = 1_600_000_000
PROGRAMS = ("sh", "env", "cat", "id", "ls", "printf", "touch", "sha256sum")


class Layer:
    """A layer's tar, entry by entry."""

    def __init__(self) -> None:
        self._members: list[tuple[tarfile.TarInfo, bytes]] = []

    def add(self, path: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: Any) -> Layer:
        member = tarfile.TarInfo(path)
        member.type, member.size = kind, len(content)
        member.mode, member.mtime = 0o644, MTIME
        for name, value in fields.items():
            setattr(member, name, value)
        self._members.append((member, content))
        return self

    def folder(self, path: str, mode: int = 0o755, **fields: Any) -> Layer:
        return self.add(path, tarfile.DIRTYPE, mode=mode, **fields)

    def file(self, path: str, content: bytes | str = b"", mode: int = 0o644, **fields: Any) -> Layer:
        return self.add(path, content=content.encode() if isinstance(content, str) else content, mode=mode, **fields)

    def link(self, path: str, target: str) -> Layer:
        return self.add(path, tarfile.SYMTYPE, linkname=target, mode=0o777)

    def hard_link(self, path: str, target: str) -> Layer:
        return self.add(path, tarfile.LNKTYPE, linkname=target)

    def whiteout(self, path: str) -> Layer:
        folder, _, name = path.rpartition("/")
        return self.file(f"{folder}/.wh.{name}" if folder else f".wh.{name}")

    def opaque(self, path: str) -> Layer:
        return self.file(f"{path}/.wh..wh..opq")

    @property
    def tar(self) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for member, content in self._members:
                tar.addfile(member, io.BytesIO(content))
        return out.getvalue()

    @property
    def diff_id(self) -> str:
        return f"sha256:{hashlib.sha256(self.tar).hexdigest()}"


def base_layer() -> Layer:
    """A few of this machine's programs, with the libraries they need."""
    layer, seen = Layer(), {"/"}

    def add(path: Path) -> None:
        for parent in [*path.parents][::-1]:
            if str(parent) not in seen:
                seen.add(str(parent))
                layer.folder(str(parent).lstrip("/"))
        if str(path) not in seen:
            seen.add(str(path))
            layer.file(str(path).lstrip("/"), path.read_bytes(), 0o755)

    for name in PROGRAMS:
        found = shutil.which(name)
        assert found
        add(Path("/bin") / name)
        for word in subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout.split():
            if word.startswith("/"):
                add(Path(word))
    return layer


class MemoryImage:
    """An image of such layers; remembers which layers it was asked for."""

    def __init__(self, *layers: Layer, config: Mapping[str, Any] | None = None, architecture: str = "amd64") -> None:
        self.raw = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "created": "2026-01-02T03:04:05Z",
                "config": config or {},
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            }
        ).encode()
        self.config: ImageConfig = parse_config(self.raw)
        self.stored = {layer.diff_id: layer.tar for layer in layers}
        self.asked: list[str] = []

    def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
        for diff_id, tar in reversed(self.stored.items()):  # any order will do
            if diff_id in wanted:
                self.asked.append(diff_id)
                yield diff_id, io.BytesIO(tar)


def write_oci_layout(image: MemoryImage, folder: Path) -> None:
    """The image as an OCI layout (image spec, image-layout.md) with the tag `x`, for other programs."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(raw: bytes, media: str) -> dict[str, Any]:
        digest = hashlib.sha256(raw).hexdigest()
        (blobs / digest).write_bytes(raw)
        return {"mediaType": f"application/vnd.oci.image.{media}", "digest": f"sha256:{digest}", "size": len(raw)}

    manifest = {
        "schemaVersion": 2,
        "config": blob(image.raw, "config.v1+json"),
        "layers": [blob(image.stored[diff_id], "layer.v1.tar") for diff_id in image.config.diff_ids],
    }
    entry = {
        **blob(json.dumps(manifest).encode(), "manifest.v1+json"),
        "annotations": {"org.opencontainers.image.ref.name": "x"},
    }
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

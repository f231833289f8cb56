"""podman-hpc: a folder that containers-storage reads as an additional image store, with the squashfs in it.

Facts from NERSC/podman-hpc `podman_hpc/migrate2scratch.py` and `bin/fuse-overlayfs-wrap`, and containers/storage (the
records' fields, store.go, layers.go, images.go): the image has one layer, an empty folder `overlay/ID/diff`; beside the
link `overlay/l/LINK` to it lies `LINK.squash`, which podman-hpc's mount program mounts over the folder before it lays
the container's own layer on top. podman without this mount program sees an empty image.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hpcbinder.convert.files import make_folder, new_file
from hpcbinder.convert.formats.job import Job
from hpcbinder.convert.imagestore import IMAGES, LAYERS, make_store, write_records
from hpcbinder.image import dump_config
from hpcbinder.registry import Descriptor, dump_manifest

_CHUNK = 1 << 20
_SEPARATORS = re.compile(r"[._-]{2,}")


def write_podman_hpc(job: Job, folder: Path) -> list[Path]:
    """`NAME.podman-hpc/`, a store of this one image, which is called `localhost/NAME`."""
    store = folder / f"{job.name}.podman-hpc"
    make_store(store)
    unplaced = store / "overlay" / "l" / "unplaced"
    job.merged.whole_file(unplaced)
    # As in an OCI-SIF the layer is the squashfs: no tar of these files has ever been, and to name it by one that
    # another image may have would make podman take this store's empty folder for that layer.
    layer, size = _digest(unplaced)
    link = base64.b32encode(hashlib.sha256(layer.encode()).digest())[:26].decode()
    job.merged.rename(unplaced, unplaced.with_name(f"{link}.squash"))
    place = store / "overlay" / layer
    for part in (place, place / "diff", place / "empty", place / "merged", place / "work"):
        make_folder(part)
    _write(place / "link", link.encode())
    (store / "overlay" / "l" / link).symlink_to(f"../{layer}/diff")
    created = datetime.fromtimestamp(job.timestamp, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    write_records(store, LAYERS, [_layer_record(layer, size, created)])
    config = dump_config(dataclasses.replace(job.config, diff_ids=(f"sha256:{layer}",)))
    image = hashlib.sha256(config).hexdigest()
    manifest = dump_manifest(
        Descriptor(f"sha256:{image}", len(config)), [Descriptor(f"sha256:{layer}", size)], job.config.labels
    )
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    data = {f"sha256:{image}": config, "manifest": manifest, f"manifest-{digest}": manifest}
    files = store / IMAGES / image
    make_folder(files)
    for key, content in data.items():
        _write(files / _file_name(key), content)
    record = _image_record(image, layer, digest, reference(job.name), created, data)
    write_records(store, IMAGES, [record])
    return [store]


def reference(name: str) -> str:
    """What an image of this name is called in podman: `localhost/NAME:latest`, in the letters a repository may have
    (distribution spec, "Pulling manifests")."""
    return f"localhost/{_SEPARATORS.sub('-', name.lower()).strip('._-')}:latest"


def _digest(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_CHUNK):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def _file_name(key: str) -> str:
    """containers/storage, makeBigDataBaseName: only keys of few signs are file names themselves."""
    if re.fullmatch(r"[a-z0-9.]+", key):
        return key
    return "=" + base64.b64encode(key.encode()).decode()


def _layer_record(layer: str, size: int, created: str) -> dict[str, Any]:
    return {
        "id": layer,
        "created": created,
        "diff-digest": f"sha256:{layer}",
        "diff-size": size,
        "compressed-diff-digest": f"sha256:{layer}",
        "compressed-size": size,
        "uidset": [0],
        "gidset": [0],
    }


def _image_record(
    image: str, layer: str, digest: str, name: str, created: str, data: dict[str, bytes]
) -> dict[str, Any]:
    return {
        "id": image,
        "digest": digest,
        "names": [name],
        "names-history": [name],
        "layer": layer,
        "metadata": "{}",
        "big-data-names": list(data),
        "big-data-sizes": {key: len(content) for key, content in data.items()},
        "big-data-digests": {key: f"sha256:{hashlib.sha256(content).hexdigest()}" for key, content in data.items()},
        "created": created,
    }


def _write(path: Path, content: bytes) -> None:
    with new_file(path, 0o644) as out:
        out.write(content)

"""An OCI image layout (image spec, image-layout.md): what skopeo, podman, umoci and registries' tools read.

An image that has its layers yet is written as it is, without what runtimes on a cluster want added: the same
configuration, and so the same id. Of one that only its squashfs is left of, that becomes the one layer.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

from hpcbinder.convert.files import make_folder, new_file
from hpcbinder.convert.formats.job import Job
from hpcbinder.errors import ConvertError
from hpcbinder.image import OciImage, SquashedImage, raw_config
from hpcbinder.registry import OCI_MANIFEST, Descriptor, compress, described, dump_manifest

_TAG = "latest"
"""The image's name in its layout: `oci:NAME.oci:latest`."""


def write_oci(job: Job, folder: Path) -> list[Path]:
    """`NAME.oci/`, layers gzipped."""
    layout = folder / f"{job.name}.oci"
    blobs = layout / "blobs" / "sha256"
    for path in (layout, blobs.parent, blobs):
        make_folder(path)
    image = job.image or _squashed(job, folder)
    layers = _write_layers(image, blobs, job)
    config = _write_blob(blobs, raw_config(image))
    if job.image is not None and config.digest != image.config.digest:
        job.reporter.log("convert", "the engine does not say the image's configuration byte for byte: it gets a new id")
    manifest = _write_blob(
        blobs, dump_manifest(config, [layers[diff_id] for diff_id in image.config.diff_ids], image.config.labels)
    )
    entry = {
        **described(OCI_MANIFEST, manifest),
        "annotations": {"org.opencontainers.image.ref.name": _TAG},
        "platform": {"architecture": image.config.architecture, "os": "linux"},
    }
    _write(layout / "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    _write(layout / "index.json", _json({"schemaVersion": 2, "manifests": [entry]}))
    return [layout]


def archive_oci(layout: Path, path: Path) -> None:
    """Pack a layout into a new tar (an `oci-archive`); the same layout gives the same bytes.

    Raises:
        OSError: A file cannot be read or written.
    """
    with new_file(path, 0o644) as out, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in sorted(layout.rglob("*")):
            member = tarfile.TarInfo(file.relative_to(layout).as_posix())
            if file.is_dir():
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
            else:
                member.size = file.stat().st_size
                with file.open("rb") as content:
                    tar.addfile(member, content)


def _squashed(job: Job, folder: Path) -> OciImage:
    file, offset, _ = job.merged.where
    return SquashedImage(file, job.config, folder, offset=offset)


def _write_layers(image: OciImage, blobs: Path, job: Job) -> dict[str, Descriptor]:
    wanted = dict.fromkeys(image.config.diff_ids)
    written: dict[str, Descriptor] = {}
    for diff_id, stream in image.layers(tuple(wanted)):
        job.reporter.phase("convert", f"writing layer {len(written) + 1} of {len(wanted)}", len(written) / len(wanted))
        unfinished = blobs / "layer"
        with new_file(unfinished, 0o644) as out:
            done = compress(stream, out)
        if done.diff_id != diff_id or diff_id not in wanted:
            raise ConvertError(f"layer {diff_id} of the image has the content of {done.diff_id}")
        unfinished.replace(blobs / done.blob.digest.removeprefix("sha256:"))
        written[diff_id] = done.blob
    if missing := [diff_id for diff_id in wanted if diff_id not in written]:
        raise ConvertError(f"the image does not hold its layer {missing[0]}")
    return written


def _write_blob(blobs: Path, content: bytes) -> Descriptor:
    digest = hashlib.sha256(content).hexdigest()
    if not (path := blobs / digest).exists():
        _write(path, content)
    return Descriptor(f"sha256:{digest}", len(content))


def _write(path: Path, content: bytes) -> None:
    with new_file(path, 0o644) as out:
        out.write(content)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")

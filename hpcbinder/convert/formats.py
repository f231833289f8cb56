"""The formats: one small function for each, which puts the merged squashfs into the files a runtime wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcbinder import sif
from hpcbinder.convert import shifter
from hpcbinder.convert.files import make_folder, new_file
from hpcbinder.convert.merged import Merged
from hpcbinder.convert.metadata import Metadata, oci_config_json
from hpcbinder.model import ImageConfig
from hpcbinder.progress import Reporter


@dataclass(frozen=True)
class Job:
    """One image to be written.

    Attributes:
        name: The files' name.
        timestamp: Unix time (s) of a SIF and its objects.
    """

    config: ImageConfig
    metadata: Metadata
    merged: Merged
    name: str
    timestamp: int
    reporter: Reporter


def _write_squashfs(job: Job, folder: Path) -> list[Path]:
    path = folder / f"{job.name}.squashfs"
    job.merged.whole_file(path)
    return [path]


def _write_shifter(job: Job, folder: Path) -> list[Path]:
    """Readable by all, other than in Shifter's own store (0600): there root mounts it, here also the person may."""
    store = folder / "shifter"
    make_folder(store)
    image = store / f"{shifter.image_id(job.config)}.squashfs"
    job.merged.whole_file(image)
    text, lost = shifter.meta_file(job.config)
    if lost:
        job.reporter.log("convert", f"left out of Shifter's .meta, which cannot hold their values: {', '.join(lost)}")
    meta = image.with_suffix(".meta")
    with new_file(meta, 0o644) as out:
        out.write(text.encode())
    return [image, meta]


def _write_sif(job: Job, folder: Path) -> list[Path]:
    path = folder / f"{job.name}.sif"
    with new_file(path, 0o755) as out:
        sif.write_sif(
            out,
            [
                sif.SifObject(sif.Kind.DEFFILE, "deffile", job.metadata.deffile.encode()),
                sif.SifObject(sif.Kind.JSON, "inspect-metadata.json", job.metadata.inspect_json()),
                sif.SifObject(sif.Kind.JSON, "oci-config.json", oci_config_json(job.config)),
                sif.SifObject(
                    sif.Kind.PARTITION, "rootfs.squashfs", lambda file, offset: job.merged.write(path, file, offset)
                ),
            ],
            architecture=job.config.architecture,
            timestamp=job.timestamp,
            uuid=job.merged.uuid,
        )
    return [path]


WRITERS: Mapping[str, Callable[[Job, Path], list[Path]]] = {
    # Plain files first: a SIF is then a copy (or a reflink) of one, and Shifter's file another name of it.
    "squashfs": _write_squashfs,
    "shifter": _write_shifter,
    "sif": _write_sif,
}
"""Format -> its writer, which gets a folder and returns what it wrote there, the file a runtime is given first."""

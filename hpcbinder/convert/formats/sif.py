"""SIF: the squashfs behind a header, with what Apptainer and Singularity are told about it."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import BinaryIO

from hpcbinder.convert.files import new_file
from hpcbinder.convert.formats.job import Job
from hpcbinder.convert.metadata import oci_config_json
from hpcbinder.convert.sbom import LEFT_OUT, make_sbom, sbom_format
from hpcbinder.sif import Kind, SbomFormat, SifObject
from hpcbinder.sif import write_sif as write
from hpcbinder.squashfs import Image, tables_digest


def write_sif(job: Job, folder: Path) -> list[Path]:
    """`NAME.sif`."""
    path = folder / f"{job.name}.sif"
    objects = [
        SifObject(Kind.DEFFILE, "deffile", job.metadata.deffile.encode()),
        SifObject(Kind.JSON, "inspect-metadata.json", job.metadata.inspect_json()),
        SifObject(Kind.JSON, "oci-config.json", oci_config_json(job.config)),
        SifObject(Kind.PARTITION, "rootfs.squashfs", lambda file, offset: job.merged.write(path, file, offset)),
    ]
    if job.sbom != LEFT_OUT:
        objects.append(_sbom(job))
    with new_file(path, 0o755) as out:
        write(
            out,
            objects,
            architecture=job.config.architecture,
            timestamp=job.timestamp,
            uuid=job.merged.uuid,
        )
    return [path]


def _sbom(job: Job) -> SifObject:
    if job.sbom is not None:
        return SifObject(Kind.SBOM, "sbom.json", job.sbom, sbom=sbom_format(job.sbom))

    def made(file: BinaryIO, offset: int) -> int:
        # Behind the partition, so that there is an image to read it from, which may be in this very file.
        file.flush()
        squashfs, start, _ = job.merged.where
        with Image.open(squashfs, offset=start) as image:
            bill = make_sbom(
                image,
                labels=job.metadata.labels,
                # Not the configuration's, which engines and registries each write in their own way.
                digest=f"sha256:{tables_digest(squashfs, start).hex()}",
                serial=str(uuid.UUID(bytes=job.merged.uuid())),
                timestamp=job.timestamp,
            )
        file.seek(offset)
        return file.write(bill)

    return SifObject(Kind.SBOM, "sbom.json", made, sbom=SbomFormat.CYCLONEDX_JSON)

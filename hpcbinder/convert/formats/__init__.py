"""The formats: a small module for each, which puts the merged squashfs into the files a runtime wants."""

from collections.abc import Mapping

from hpcbinder.convert.formats.job import Job, Writer
from hpcbinder.convert.formats.oci import archive_oci, write_oci
from hpcbinder.convert.formats.plain import plain
from hpcbinder.convert.formats.podman_hpc import write_podman_hpc
from hpcbinder.convert.formats.shifter import write_shifter
from hpcbinder.convert.formats.sif import write_sif

__all__ = ["WRITERS", "Job", "Writer", "archive_oci"]

WRITERS: Mapping[str, Writer] = {
    # Plain files first: a SIF is then a copy (or a reflink) of one, and the others are other names of it.
    "squashfs": plain(".squashfs"),
    "shifter": write_shifter,
    "charliecloud": plain(".sqfs"),
    "enroot": plain(".sqsh"),
    "podman-hpc": write_podman_hpc,
    "sif": write_sif,
    "oci": write_oci,
}
"""Format -> its writer."""

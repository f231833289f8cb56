"""OCI images: their configuration and their layers, named by DiffID, from wherever they come."""

from hpcbinder.image.archive import DockerArchive
from hpcbinder.image.compression import uncompressed
from hpcbinder.image.layout import OciLayout
from hpcbinder.image.manifest import (
    ARCHITECTURES,
    Descriptor,
    Manifest,
    Platform,
    choose,
    is_index,
    parse_manifest,
)
from hpcbinder.image.oci import OciImage, check_digest, dump_config, parse_config, raw_config
from hpcbinder.image.packages import image_packages
from hpcbinder.image.squashed import SquashedImage
from hpcbinder.image.stacked import StackedImage
from hpcbinder.image.writer import write_docker_archive

__all__ = [
    "ARCHITECTURES",
    "Descriptor",
    "DockerArchive",
    "Manifest",
    "OciImage",
    "OciLayout",
    "Platform",
    "SquashedImage",
    "StackedImage",
    "check_digest",
    "choose",
    "dump_config",
    "image_packages",
    "is_index",
    "parse_config",
    "raw_config",
    "parse_manifest",
    "uncompressed",
    "write_docker_archive",
]

"""OCI images: their configuration and their layers, named by DiffID, from wherever they come."""

from hpcbinder.image.archive import DockerArchive
from hpcbinder.image.compression import uncompressed
from hpcbinder.image.oci import OciImage, check_digest, dump_config, parse_config
from hpcbinder.image.packages import image_packages
from hpcbinder.image.squashed import SquashedImage
from hpcbinder.image.writer import write_docker_archive

__all__ = [
    "DockerArchive",
    "OciImage",
    "SquashedImage",
    "check_digest",
    "dump_config",
    "image_packages",
    "parse_config",
    "uncompressed",
    "write_docker_archive",
]

"""OCI images: their configuration and their layers, named by DiffID, from wherever they come."""

from hpcbinder.image.archive import DockerArchive
from hpcbinder.image.oci import OciImage, check_digest, parse_config
from hpcbinder.image.packages import image_packages
from hpcbinder.image.writer import write_docker_archive

__all__ = ["DockerArchive", "OciImage", "check_digest", "image_packages", "parse_config", "write_docker_archive"]

"""squashfs 4.0 images: written from layer tars, merged without recompression, read without mounting.

Usable alone. The format is described by squashfs-tools-ng's doc/format.adoc and by Linux, fs/squashfs/squashfs_fs.h.
"""

from hpcbinder.squashfs.identity import is_squashfs, tables_digest, tables_uuid
from hpcbinder.squashfs.image import Image, Info, Node
from hpcbinder.squashfs.layer import write_layer
from hpcbinder.squashfs.merge import merge
from hpcbinder.squashfs.options import Options
from hpcbinder.squashfs.output import WriteError

__all__ = [
    "Image",
    "Info",
    "Node",
    "Options",
    "WriteError",
    "is_squashfs",
    "merge",
    "tables_digest",
    "tables_uuid",
    "write_layer",
]

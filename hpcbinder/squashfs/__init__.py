"""squashfs 4.0 images: written from layer tars, merged without recompression, read without mounting.

Usable alone. The format is described by squashfs-tools-ng's doc/format.adoc and by Linux, fs/squashfs/squashfs_fs.h.
"""

from hpcbinder.squashfs.identity import is_squashfs, tables_digest, tables_uuid
from hpcbinder.squashfs.image import Image, Info, Node
from hpcbinder.squashfs.layer import write_layer
from hpcbinder.squashfs.memory import share_freed
from hpcbinder.squashfs.merge import merge
from hpcbinder.squashfs.options import Options
from hpcbinder.squashfs.output import WriteError
from hpcbinder.squashfs.stream import HashedStream
from hpcbinder.squashfs.tar import Member as TarMember
from hpcbinder.squashfs.tar import TarReader
from hpcbinder.squashfs.totar import open_tar

__all__ = [
    "HashedStream",
    "Image",
    "Info",
    "Node",
    "Options",
    "TarMember",
    "TarReader",
    "WriteError",
    "is_squashfs",
    "merge",
    "open_tar",
    "share_freed",
    "tables_digest",
    "tables_uuid",
    "write_layer",
]

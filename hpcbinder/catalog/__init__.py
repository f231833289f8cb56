"""The images there are: content-addressed folders on a shared file system, no database."""

from hpcbinder.catalog.extents import shared_bytes
from hpcbinder.catalog.files import make_folder, mark_used, move_file, remove_tree, sync_folder, write_atomic
from hpcbinder.catalog.logs import LogBook
from hpcbinder.catalog.logs import read as read_log
from hpcbinder.catalog.record import build, dump, parse
from hpcbinder.catalog.store import Catalog
from hpcbinder.catalog.sweep import PACKAGES, Item, items
from hpcbinder.catalog.sweep import size as size_on_disk
from hpcbinder.catalog.vouching import open_places, vouched

__all__ = [
    "PACKAGES",
    "Catalog",
    "Item",
    "LogBook",
    "build",
    "dump",
    "items",
    "make_folder",
    "mark_used",
    "move_file",
    "open_places",
    "parse",
    "read_log",
    "remove_tree",
    "shared_bytes",
    "size_on_disk",
    "sync_folder",
    "vouched",
    "write_atomic",
]

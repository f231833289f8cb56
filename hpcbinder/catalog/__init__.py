"""The images there are: content-addressed folders on a shared file system, no database."""

from hpcbinder.catalog.files import remove_tree
from hpcbinder.catalog.store import Catalog

__all__ = ["Catalog", "remove_tree"]

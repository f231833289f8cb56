"""Where images to convert come from: engines, archives, layouts, registries, and files that are converted already."""

from hpcbinder.transport.address import TRANSPORTS, Address, parse_source
from hpcbinder.transport.opened import Opened, open_source
from hpcbinder.transport.squashed import Squashed, is_squashed, squashed_entry

__all__ = [
    "TRANSPORTS",
    "Address",
    "Opened",
    "Squashed",
    "is_squashed",
    "open_source",
    "parse_source",
    "squashed_entry",
]

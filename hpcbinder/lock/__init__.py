"""Locks before builds: the exact versions and hashes of what is wanted, found here without running any of it.

uv asks the site's package index, and nothing else, for metadata; no wheel is unpacked and no source is built.
"""

from hpcbinder.lock.record import read_locks
from hpcbinder.lock.resolver import Resolver

__all__ = ["Resolver", "read_locks"]

"""Locks before builds: the exact versions and hashes of what is wanted, found here without running any of it.

uv asks the site's package index, and nothing else, for metadata; no wheel is unpacked and no source is built.
"""

from hpcbinder.lock.record import read_locks, sound
from hpcbinder.lock.resolver import Resolver
from hpcbinder.lock.store import LockStore, inputs_key

__all__ = ["LockStore", "Resolver", "inputs_key", "read_locks", "sound"]

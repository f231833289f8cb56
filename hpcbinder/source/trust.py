"""Whose certificates are believed: read once for all connections, for a hundred authorities take as long to read as
several answers take to come."""

from __future__ import annotations

import ssl
import threading
from functools import lru_cache
from pathlib import Path

import requests
import urllib3

from hpcbinder.errors import FetchError

_reading = threading.Lock()


def trust(authorities: Path | None) -> ssl.SSLContext:
    """What connections are made with; all share it.

    Args:
        authorities: A site's file of authorities, which alone count; None for what the system trusts, and requests
            beside it.

    Raises:
        FetchError: They cannot be read.
    """
    try:
        with _reading:
            return _read(authorities, _state(authorities))
    except OSError as error:  # what is no certificate is one, too
        raise FetchError(
            f"its certificates cannot be read: {error.strerror or error}",
            where=str(authorities) if authorities else None,
            hint="see site.ca_certificates" if authorities else None,
        ) from None


def _state(authorities: Path | None) -> tuple[object, ...]:
    """Another one once a file is replaced, which a service outlives."""
    system = (requests.utils.DEFAULT_CA_BUNDLE_PATH, ssl.get_default_verify_paths().cafile)
    found = [Path(path).stat() for path in ([authorities] if authorities else system) if path]
    return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)


@lru_cache(maxsize=4)
def _read(authorities: Path | None, state: tuple[object, ...]) -> ssl.SSLContext:
    if authorities is None:
        context = ssl.create_default_context()
        context.load_verify_locations(requests.utils.DEFAULT_CA_BUNDLE_PATH)
    else:
        context = urllib3.util.create_urllib3_context()
        context.load_verify_locations(authorities)
    return context

"""Getting blobs: taken up again where a connection broke, and never other than their digest says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from hpcbinder.errors import RegistryError
from hpcbinder.registry.client import Client
from hpcbinder.registry.manifest import Descriptor
from hpcbinder.registry.transport import Unreachable

_PROGRESS = 1 << 20
"""Bytes that make a broken attempt one that was worth it."""


def fetch(client: Client, repository: str, blob: Descriptor, target: Path, count: Callable[[int], None]) -> None:
    """Download a blob.

    Args:
        target: File it becomes; removed if it cannot be had.
        count: Gets the bytes of each piece that came; negative ones when they have to come again.

    Raises:
        RegistryError: It cannot be had, or is not what its digest says.
        OSError: The file cannot be written.
    """
    try:
        with target.open("wb") as file:
            _fetch(client, repository, blob, file, count)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _fetch(client: Client, repository: str, blob: Descriptor, file: BinaryIO, count: Callable[[int], None]) -> None:
    digest, size, best, left = hashlib.sha256(), 0, 0, client.transport.patience.attempts
    while size < blob.size:
        response = client.request(
            "GET",
            f"/v2/{repository}/blobs/{blob.digest}",
            repository=repository,
            headers={"Range": f"bytes={size}-"} if size else {},
            expect=(200, 206),
            follow=True,
        )
        if size and not (
            response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {size}-")
        ):
            count(-size)
            digest, size = hashlib.sha256(), 0
            file.seek(0)
            file.truncate()
        try:
            for piece in client.transport.stream(response):
                size += len(piece)
                if size > blob.size:
                    break
                digest.update(piece)
                file.write(piece)
                count(len(piece))
            if size < blob.size:
                raise Unreachable(f"the answer breaks off after {size} of {blob.size} bytes", where=client.host)
        except Unreachable:
            # What breaks now and then may do so for as long as each attempt leads further.
            left, best = left if size > best + _PROGRESS else left - 1, max(best, size)
            if left <= 0:
                raise
        finally:
            response.close()
    if size != blob.size or f"sha256:{digest.hexdigest()}" != blob.digest:
        raise RegistryError(
            f"a blob is not what its digest says ({blob.digest})",
            where=f"{client.host}/{repository}",
            hint="the registry or something on the way to it is broken, or lies",
        )

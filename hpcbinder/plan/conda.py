"""Lists of conda packages, as steps hold them: exactly which files are linked, in which order."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence

from hpcbinder.errors import DetectError
from hpcbinder.model import Lock, LockedPackage

ENGINE_SCRIPT = """echo "conda environments are assembled of their packages, no engine makes them" >&2
exit 1
"""
"""What a step of conda packages says where it is run."""


def conda_list(lock: Lock) -> str:
    """A lock as the text that a step holds: JSON, an object for each package, in the order they are linked in."""
    packages = {package.name: package for package in lock.packages}
    rows = []
    for name in (name for layer in lock.layers for name in layer):
        package = packages[name]
        values = {
            "name": package.name,
            "version": package.version,
            "build": package.build,
            "url": package.url,
            "sha256": package.hashes[0].removeprefix("sha256:"),
            "size": package.size,
        }
        rows.append(json.dumps(values))
    return "[\n" + ",\n".join(rows) + "\n]\n"


@functools.lru_cache(maxsize=16)
def conda_packages(text: str) -> Sequence[LockedPackage]:
    """The packages of such a text, in their order.

    Raises:
        DetectError: It is none.
    """
    try:
        return tuple(
            LockedPackage(
                row["name"], row["version"], (f"sha256:{row['sha256']}",), row["url"], row["build"], row["size"]
            )
            for row in json.loads(text)
        )
    except (ValueError, KeyError, TypeError):
        raise DetectError("is no list of conda packages") from None

"""What an image of ours says it holds: the package lists its build steps left in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from hpcbinder import contract
from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import Image

_LIMIT = 4 << 20
_ECOSYSTEM = re.compile(r"[a-z][a-z0-9-]{0,30}")


def image_packages(image: Image) -> dict[str, tuple[Mapping[str, str], ...]]:
    """Ecosystem -> [{"name":…, "version":…}], sorted by name; {} for an image that is not ours.

    The lists were written while the repository's own code could run, so nothing in them is believed to be more than
    text, and one that cannot be read is left out.

    Args:
        image: The image's squashfs, opened.

    Raises:
        ConvertError: The image is damaged.
    """
    found: dict[str, tuple[Mapping[str, str], ...]] = {}
    folder = image.lookup(contract.PACKAGES_DIR)
    if folder is None or folder.kind != "directory":
        return found
    for file in sorted(image.listdir(contract.PACKAGES_DIR)):
        ecosystem = file.removesuffix(".json")
        path = f"{contract.PACKAGES_DIR}/{file}"
        node = image.lookup(path)
        if not _ECOSYSTEM.fullmatch(ecosystem) or node is None or node.kind != "file" or node.size > _LIMIT:
            continue
        try:
            found[ecosystem] = _read(image.read(path, _LIMIT))
        except ConvertError:
            raise
        except (ValueError, RecursionError):
            continue
    return found


def _read(raw: bytes) -> tuple[Mapping[str, str], ...]:
    value = json.loads(raw)
    if not isinstance(value, list):
        raise ValueError("not a list")
    packages = [
        {"name": item["name"], "version": item["version"]}
        for item in value
        if isinstance(item, dict) and isinstance(item.get("name"), str) and isinstance(item.get("version"), str)
    ]
    return tuple(sorted(packages, key=lambda package: package["name"]))

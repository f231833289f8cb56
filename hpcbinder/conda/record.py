"""`conda-meta/NAME-VERSION-BUILD.json`: how conda, mamba and rattler know what is installed (docs.conda.io,
"conda-meta"; rattler's `PrefixRecord`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcbinder.conda.layout import Placed
from hpcbinder.model import LockedPackage

_OF_INDEX = (
    "arch",
    "build",
    "build_number",
    "constrains",
    "depends",
    "features",
    "license",
    "license_family",
    "name",
    "noarch",
    "platform",
    "python_site_packages_path",
    "timestamp",
    "track_features",
    "version",
)
"""Keys of index.json that a record has, too; others that a package may come with are nobody's business."""


@dataclass(frozen=True)
class Installed:
    """A file as it came to be.

    Attributes:
        file: What it was made of; None for bytecode.
        path: Below the prefix.
        sha256: Hex; "" for a link.
        size: Bytes.
    """

    file: Placed | None
    path: str
    sha256: str
    size: int


def record_path(package: LockedPackage) -> str:
    """Where it is, below the prefix."""
    return f"conda-meta/{package.name}-{package.version}-{package.build}.json"


def record(index: Mapping[str, Any], package: LockedPackage, noarch: str, files: Sequence[Installed]) -> bytes:
    """Its text. It says nothing of the environment: every environment with the package has the same.

    Args:
        index: The package's `info/index.json`.
        files: All that is installed, but this record.
    """
    channel, _, name = package.url.rpartition("/")
    channel, _, subdir = channel.rpartition("/")
    ordered = sorted(files, key=lambda file: file.path)
    values = {
        **{key: index[key] for key in _OF_INDEX if key in index},
        "channel": channel,
        "depends": index.get("depends", []),
        "constrains": index.get("constrains", []),
        "files": [file.path for file in ordered],
        "fn": name,
        "link": {"source": "", "type": 3},
        "paths_data": {"paths": [_path(file, noarch) for file in ordered], "paths_version": 1},
        "requested_spec": "",
        "requested_specs": [],
        "sha256": package.hashes[0].removeprefix("sha256:"),
        "size": package.size or None,
        "subdir": subdir,
        "url": package.url,
    }
    return (
        json.dumps({key: value for key, value in values.items() if value is not None}, indent=2, sort_keys=True) + "\n"
    ).encode()


def _path(installed: Installed, noarch: str) -> dict[str, Any]:
    file = installed.file
    if file is None:
        return {
            "_path": installed.path,
            "path_type": "pyc_file" if noarch == "python" else "hardlink",
            "sha256_in_prefix": installed.sha256,
            "size_in_bytes": installed.size,
        }
    if file.packed is None:
        return {"_path": installed.path, "path_type": "unix_python_entry_point"}
    if file.packed.content is None:
        return {"_path": installed.path, "path_type": "softlink"}
    values: dict[str, Any] = {
        "_path": installed.path,
        "path_type": "hardlink",
        "size_in_bytes": installed.size,
        "sha256_in_prefix": installed.sha256,
    }
    if file.entry.sha256:
        values["sha256"] = file.entry.sha256
    if file.original != installed.path:
        values["original_path"] = file.original
    if file.entry.placeholder:
        values["prefix_placeholder"] = file.entry.placeholder
        values["file_mode"] = "binary" if file.entry.binary else "text"
    return values

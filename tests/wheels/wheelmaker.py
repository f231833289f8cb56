"""Wheels made for a test, good and bad."""

from __future__ import annotations

import base64
import hashlib
import io
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from package_index import TIME, File, PackageIndex

from hpcbinder.model import Lock, LockedPackage
from hpcbinder.squashfs import Image
from hpcbinder.wheels import Target

Install = Callable[..., list[Path]]

PLATFORM = "x86_64-manylinux_2_36"


def wheel(
    name: str = "pack",
    version: str = "1.0",
    files: Mapping[str, bytes | str] | None = None,
    *,
    tag: str = "py3-none-any",
    modes: Mapping[str, int] | None = None,
    method: int = zipfile.ZIP_DEFLATED,
    record: Callable[[str], str] = lambda text: text,
    change: Callable[[zipfile.ZipFile], None] = lambda archive: None,
) -> File:
    """A wheel.

    Args:
        files: Path in the wheel -> content, besides or instead of what every wheel has.
        modes: Path -> Unix mode with the file's type.
        method: How its files are packed.
        record: Text of RECORD -> what is written instead.
        change: Adds to the archive what no wheel has.
    """
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    content = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
        **(files or {}),
    }
    data = {path: text.encode() if isinstance(text, str) else text for path, text in content.items()}
    rows = "".join(f"{path},sha256={_hash(value)},{len(value)}\n" for path, value in data.items())
    data[f"{info}/RECORD"] = record(f"{rows}{info}/RECORD,,\n").encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, value in data.items():
            member = zipfile.ZipInfo(path, TIME)
            member.compress_type = method
            member.external_attr = (modes or {}).get(path, 0o100644) << 16
            archive.writestr(member, value)
        change(archive)
    return File(f"{stem}-{version}-{tag}.whl", out.getvalue())


def publish(index: PackageIndex, *files: File) -> None:
    for file in files:
        index.packages.setdefault(file.name.split("-")[0].replace("_", "-"), []).append(file)


def locked(file: File, *others: File, url: str = "") -> LockedPackage:
    name, version = file.name.split("-")[:2]
    hashes = sorted(f"sha256:{one.sha256}" for one in (file, *others))
    return LockedPackage(name.replace("_", "-"), version, tuple(hashes), url)


def lock(*packages: LockedPackage) -> Lock:
    names = tuple(sorted(package.name for package in packages))
    return Lock(
        "pypi", "resolved", "3.11", PLATFORM, tuple(sorted(packages, key=lambda package: package.name)), (names,)
    )


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


class Said:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.logged: list[str] = []

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        self.lines.append(message)

    def log(self, phase: str, line: str) -> None:
        self.logged.append(line)


def target(prefix: str = "/opt/env", python: str = ".".join(map(str, sys.version_info[:3])), **changes: Any) -> Target:
    return Target(
        **{
            "prefix": prefix,
            "python": python,
            "executable": f"{prefix}/bin/python",
            "architecture": "amd64",
            "platform": PLATFORM,
            **changes,
        }
    )


def contents(layer: Path) -> dict[str, tuple[int, bytes]]:
    """Files of a layer: path -> (mode, content)."""
    with Image.open(layer) as image:
        files = [(path, node) for path, node in image.walk() if node.kind == "file" and "/" in path]
        return {path: (node.mode, image.read(path, 1 << 30)) for path, node in files if ".wh." not in path}

"""Requirements files with hashes, as steps hold them: which wheels they mean on one interpreter and platform."""

from __future__ import annotations

import functools
import re

from hpcbinder.errors import DetectError
from hpcbinder.model import LockedPackage
from hpcbinder.text import one_line

MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "ppc64le"}
"""OCI architecture -> what Python and wheels call it."""

_HASH = re.compile(r"(?<=\s)--hash=(sha256:[0-9a-f]{64})(?=\s|$)")


def marker_environment(python: str, architecture: str) -> dict[str, str]:
    """Values of the marker variables (PEP 508) in an image; none of them is this machine's.

    Args:
        python: `X.Y.Z` of a CPython.
        architecture: OCI name.
    """
    return {
        "implementation_name": "cpython",
        "implementation_version": python,
        "os_name": "posix",
        "platform_machine": MACHINES.get(architecture, architecture),
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": "linux",
    }


@functools.lru_cache(maxsize=16)
def locked_wheels(text: str, python: str, architecture: str) -> tuple[LockedPackage, ...]:
    """The packages of a requirements file of exact versions, each with hashes, without those whose marker is false.

    Args:
        text: Lines `name==version --hash=sha256:…` or `name @ URL --hash=sha256:…`, some with a marker, continued by a
            backslash, as `uv pip compile --generate-hashes` writes them.
        python: `X.Y.Z` of the interpreter.
        architecture: OCI name.

    Returns:
        Them, sorted by name.

    Raises:
        DetectError: A line that is no such requirement.
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    environment = marker_environment(python, architecture)
    found: list[LockedPackage] = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        hashes = tuple(sorted(set(_HASH.findall(line))))
        try:
            wanted = Requirement(_HASH.sub("", line).strip())
        except InvalidRequirement:
            raise _bad(line) from None
        if wanted.marker is not None and not wanted.marker.evaluate(environment):
            continue
        versions = [each.version for each in wanted.specifier if each.operator == "=="]
        version = versions[0] if len(versions) == len(wanted.specifier) == 1 else ""
        if not hashes or not (version or wanted.url):
            raise _bad(line)
        found.append(LockedPackage(canonicalize_name(wanted.name), version, hashes, wanted.url or ""))
    return tuple(sorted(found, key=lambda package: package.name))


def _bad(line: str) -> DetectError:
    return DetectError(f"not an exact version with hashes: {one_line(line, 100)}")

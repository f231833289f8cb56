"""Which wheels a base can run, in uv's words."""

from __future__ import annotations

from hpcbinder.errors import DetectError
from hpcbinder.plan import SUITES

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

_MANYLINUX = (17, 28, *range(31, 41))
"""The manylinux_2_… that `uv pip compile --python-platform` knows."""


def platform_of(architecture: str, suite: str) -> str:
    """The platform a lock is for: `x86_64-manylinux_2_36`, by the suite's C library (PEP 600).

    Args:
        architecture: OCI name.

    Raises:
        DetectError: uv cannot resolve for this architecture.
    """
    machine = _MACHINES.get(architecture)
    if machine is None:
        raise DetectError(
            f"packages cannot be resolved ahead for {architecture}", hint="--no-lock leaves it to the build"
        )
    return f"{machine}-manylinux_{SUITES[suite].glibc.replace('.', '_')}"


def uv_platform(platform: str) -> str:
    """The newest platform that uv knows whose wheels run on this one."""
    machine, _, glibc = platform.rpartition("-manylinux_2_")
    return f"{machine}-manylinux_2_{max(minor for minor in _MANYLINUX if minor <= int(glibc))}"

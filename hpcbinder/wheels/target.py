"""What a wheel is installed for: an environment at a fixed place, an interpreter, a platform."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from hpcbinder.errors import BuildError

if TYPE_CHECKING:
    from packaging.tags import Tag

MAGIC = {(3, 9): 3425, (3, 10): 3439, (3, 11): 3495, (3, 12): 3531, (3, 13): 3571, (3, 14): 3627}
"""The number that begins a release's bytecode (CPython, Include/internal/pycore_magic_number.h): the same for every
release of `X.Y`, while alphas, betas and candidates each have their own."""

_FINAL = re.compile(r"3\.\d{1,2}\.\d{1,3}")
_VERSION = re.compile(r"3\.\d{1,2}\.\d{1,3}((a|b|rc)\d{1,3})?")
_PATH = re.compile(r"(/[^/\0-\x20\x7f'\"\\]+)+")
_PLATFORM = re.compile(r"(?P<machine>x86_64|aarch64)-manylinux_2_(?P<minor>\d{1,3})")
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
"""Older names of some platforms (PEP 600, "Legacy manylinux tags")."""
_OLDEST = {"x86_64": 5, "aarch64": 17}


@dataclass(frozen=True)
class Target:
    """What the files of an installed wheel depend on, besides the wheel.

    Attributes:
        prefix: Of the environment, a venv or what looks like one: `/opt/env`.
        python: `X.Y.Z` of the image's CPython.
        executable: What scripts are started with, in the image: `/opt/env/bin/python`.
        architecture: OCI name.
        platform: As `Lock.platform` has it: `x86_64-manylinux_2_36`.

    Raises:
        BuildError: Nothing can be installed for this.
    """

    prefix: str
    python: str
    executable: str
    architecture: str
    platform: str

    def __post_init__(self) -> None:
        if not (
            _VERSION.fullmatch(self.python)
            and _PLATFORM.fullmatch(self.platform)
            and all(
                _PATH.fullmatch(path) and not {".", ".."} & set(path.split("/"))
                for path in (self.prefix, self.executable)
            )
        ):
            raise BuildError(f"wheels cannot be installed for {self}")

    @cached_property
    def version(self) -> tuple[int, int]:
        """`X.Y` as numbers."""
        major, minor = self.python.split(".")[:2]
        return int(major), int(minor)

    @cached_property
    def packages(self) -> str:
        """Where modules are, below the prefix."""
        return f"lib/python{self.version[0]}.{self.version[1]}/site-packages"

    @property
    def headers(self) -> str:
        """Where a package's C headers have a folder, below the prefix: where venvs have it."""
        return f"include/site/python{self.version[0]}.{self.version[1]}"

    @property
    def cache_tag(self) -> str:
        """What a file of bytecode has in its name (PEP 3147)."""
        return f"cpython-{self.version[0]}{self.version[1]}"

    @property
    def magic(self) -> int | None:
        """The number that begins the interpreter's bytecode, if that is known without asking it."""
        return MAGIC.get(self.version) if _FINAL.fullmatch(self.python) else None

    @property
    def interpreter(self) -> str:
        """What bytecode is for: `cp311-3495`; equal for two that can run each other's."""
        return f"cp{self.version[0]}{self.version[1]}-{self.magic or self.python}"

    @cached_property
    def tags(self) -> dict[Tag, int]:
        """What tags of wheels will do (packaging.python.org, "Platform compatibility tags") -> rank, 0 is best."""
        from packaging.tags import compatible_tags, cpython_tags

        platforms = list(self._platforms())
        name = f"cp{self.version[0]}{self.version[1]}"
        tags = [
            *cpython_tags(self.version, [name], platforms),
            *compatible_tags(self.version, name, platforms),
        ]
        return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}

    def _platforms(self) -> Iterator[str]:
        match = _PLATFORM.fullmatch(self.platform)
        assert match is not None
        machine = match["machine"]
        yield f"linux_{machine}"
        for minor in range(int(match["minor"]), _OLDEST[machine] - 1, -1):
            yield f"manylinux_2_{minor}_{machine}"
            if minor in _LEGACY:
                yield f"{_LEGACY[minor]}_{machine}"

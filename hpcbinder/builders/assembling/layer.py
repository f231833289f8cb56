"""What an assembled image is made of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layer:
    """A squashed layer.

    Attributes:
        identity: `sha256:…` of its tar, or of what it was made of where there never was one.
    """

    path: Path
    identity: str

    @classmethod
    def of_package(cls, path: Path) -> Layer:
        """The layer of a package, which is in a file named by what it was made of."""
        return cls(path, f"sha256:{hashlib.sha256(path.name.encode()).hexdigest()}")

    @property
    def is_package(self) -> bool:
        """Whether it is a package's, one of many that an image has."""
        return self == Layer.of_package(self.path)

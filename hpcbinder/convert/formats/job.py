"""What every format's writer is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.convert.merged import Merged
from hpcbinder.convert.metadata import Metadata
from hpcbinder.image import OciImage
from hpcbinder.model import ImageConfig
from hpcbinder.progress import Reporter


@dataclass(frozen=True)
class Job:
    """One image to be written.

    Attributes:
        name: The files' name.
        timestamp: Unix time (s) of a SIF and its objects.
        image: Where its layers are, None if only the squashfs is left of it.
        sbom: What it is made of, as CycloneDX JSON.
    """

    config: ImageConfig
    metadata: Metadata
    merged: Merged
    name: str
    timestamp: int
    reporter: Reporter
    image: OciImage | None = None
    sbom: bytes | None = None


Writer = Callable[[Job, Path], list[Path]]
"""Gets a folder and returns what it wrote there, the file (or folder) a runtime is given first."""

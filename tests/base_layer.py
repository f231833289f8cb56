"""Debian's base as a squashed layer, as tests of what runs on one want it: made once, and kept by the rig."""

from __future__ import annotations

from pathlib import Path

from hpcbinder.bases import BaseImage, ensure_base
from hpcbinder.config import load
from hpcbinder.convert import LayerCache
from hpcbinder.image import DockerArchive
from hpcbinder.model import BaseRef
from hpcbinder.plan import BASE_VARIANT
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Options
from rig import Rig

REF = BaseRef("debian:bookworm", "bookworm", "3.11", "amd64", BASE_VARIANT)
OPTIONS = Options(compressor="lz4")


def base_image(folder: Path) -> BaseImage:
    """As engines have it.

    Args:
        folder: Where bases are kept.
    """
    site = load({}, user_file=Path("/nonexistent"), site_file=Path("/nonexistent")).site
    return ensure_base(REF, folder=folder, site=site, reporter=Silent())


def base_layer(rig: Rig) -> Path:
    """The layer, readable for everybody, squashed with `OPTIONS`."""
    archive = base_image(rig.folder / "bases")
    folder = rig.folder / "base-layer"
    folder.mkdir(mode=0o755, exist_ok=True)
    (path,) = LayerCache(folder, OPTIONS).ensure(DockerArchive(archive.archive), folder, Silent())
    path.chmod(0o644)
    return path

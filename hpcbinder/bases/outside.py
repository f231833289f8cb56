"""Images from registries that a repository's own Dockerfile stands on, as archives that an engine loads."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from hpcbinder.bases.kept import BaseImage, Parts, ensure_kept
from hpcbinder.errors import BuildError, ConvertError, RegistryError
from hpcbinder.model import OutsideImage
from hpcbinder.progress import Reporter
from hpcbinder.registry import Platform, Registry, parse_reference

_TAKES = re.compile(r"--(from|mount)", re.IGNORECASE)
_NO_LETTERS = re.compile(r"[\\`\"'\s]")
"""What an engine leaves out of a flag: quotes, escapes, continued lines (BuildKit `parser/split_command.go`)."""


def ensure_outside(
    image: OutsideImage,
    architecture: str,
    *,
    folder: Path,
    shared: Sequence[Path],
    registry: Registry,
    reporter: Reporter,
) -> BaseImage:
    """The archive of such an image, pulled if it is not there yet.

    Args:
        folder: Where archives are kept.
        shared: Read-only folders of other stores to look in first.

    Raises:
        BuildError: It cannot be had or kept.
    """

    def make(scratch: Path) -> Parts:
        reporter.phase("build", f"image {image.name}: pulling {image.image} (once)")
        return _pull(image, architecture, scratch, registry)

    return ensure_kept(
        f"outside-{image.tag.rpartition(':')[2]}",
        image.tag,
        what=f"the image {image.name}",
        folder=folder,
        shared=shared,
        reporter=reporter,
        make=make,
    )


def _pull(image: OutsideImage, architecture: str, scratch: Path, registry: Registry) -> Parts:
    try:
        found = registry.pull(parse_reference(image.image), Platform(architecture), scratch)
        config = json.loads(found.raw_config)
        # What an image has the one above it do would run in the build: it must not name images either (parse.py of the
        # buildpack sees to the Dockerfile itself).
        triggers = (config.get("config") or {}).get("OnBuild") or []
        if bad := next((str(text) for text in triggers if _TAKES.search(_NO_LETTERS.sub("", str(text)))), None):
            raise BuildError(
                f"{image.name} has its users do `{bad[:80]}` (ONBUILD), which takes from other images",
                where=image.image,
            )
        paths: dict[str, Path] = {}
        for diff_id, stream in found.layers(set(found.config.diff_ids)):
            paths[diff_id] = scratch / f"{diff_id.removeprefix('sha256:')}.tar"
            with paths[diff_id].open("wb") as out:
                shutil.copyfileobj(stream, out, 1 << 20)
    except (RegistryError, ConvertError) as error:
        message = f"{image.name} cannot be had from a registry: {error.message}"
        raise BuildError(message, where=error.where, hint=error.hint) from error
    return config, [(diff_id, paths[diff_id]) for diff_id in found.config.diff_ids]

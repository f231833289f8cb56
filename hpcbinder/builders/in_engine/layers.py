"""Squashed layers as an image of an engine, and what was put on top of it as a tar."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hpcbinder.builders.assembling import Layer, stacked
from hpcbinder.engine import Engine, EngineImage
from hpcbinder.errors import BuildError, ConvertError
from hpcbinder.image import OciImage, dump_config, write_docker_archive
from hpcbinder.model import ImageConfig, fingerprint
from hpcbinder.progress import Reporter

NAME = "localhost/hpcbinder/assembled"
"""Of all such images."""

_PIECE = 1 << 20


class LayersInEngine:
    """Hands what is assembled so far to an engine.

    An image is named by what it is made of: whoever needs the same again finds it there, until it is old
    (`hpcbinder.gc`).

    Args:
        known: Folder that keeps DiffIDs (see `StackedImage`).
        scratch: Folder for temporary files, large enough for an image.
    """

    def __init__(self, engine: Engine, known: Path, scratch: Path, reporter: Reporter) -> None:
        self._engine = engine
        self._known = known
        self._scratch = scratch
        self._reporter = reporter

    def have(self, config: ImageConfig, base: OciImage, layers: Sequence[Layer]) -> EngineImage:
        """The image that layers are, loaded if it is not there yet.

        Args:
            config: What it is.
            base: What it stands on, its layers as tars.
            layers: All its layers squashed, the base's first.

        Raises:
            BuildError: The engine does not take it.
            ConvertError: A layer is damaged, or a file cannot be written.
        """
        tag = tag_of(config, layers)
        found = self._engine.image(tag, scratch=self._scratch)
        if found is not None:
            return found
        whole = stacked(config, base, layers[len(base.config.diff_ids) :], self._known)
        self._reporter.phase("build", f"handing what is assembled so far to {self._engine.name}")
        try:
            self._load(whole, tag)
        except OSError as error:
            raise ConvertError(f"cannot be written: {error.strerror}", where=str(self._scratch)) from error
        found = self._engine.image(tag, scratch=self._scratch)
        if found is None:
            raise BuildError(f"{self._engine.name} loaded {tag}, but does not have it")
        return found

    def added(self, image: EngineImage, below: EngineImage, scratch: Path) -> Path:
        """A new tar, in a folder, of the layer that an image has on top of another.

        Raises:
            BuildError: There is more, or the engine hands out something else.
        """
        count = len(below.config.diff_ids)
        new = image.config.diff_ids[count:]
        if image.config.diff_ids[:count] != below.config.diff_ids or len(new) > 1:
            raise BuildError(f"{self._engine.name} made other layers than the step's own")
        handle, name = tempfile.mkstemp(prefix="step-", suffix=".tar", dir=scratch)
        with os.fdopen(handle, "wb") as out:
            if not new:
                out.write(bytes(1024))
            for diff_id, stream in image.layers(new):
                digest = hashlib.sha256()
                while piece := stream.read(_PIECE):
                    digest.update(piece)
                    out.write(piece)
                if f"sha256:{digest.hexdigest()}" != diff_id:
                    raise BuildError(f"{self._engine.name} hands out another layer than {diff_id}")
        return Path(name)

    def _load(self, image: OciImage, tag: str) -> None:
        with tempfile.TemporaryDirectory(prefix="load-", dir=self._scratch) as name:
            folder = Path(name)
            layers: dict[str, Path] = {}
            for diff_id, stream in image.layers(image.config.diff_ids):
                path = layers[diff_id] = folder / f"{len(layers)}.tar"
                with path.open("wb") as out:
                    while piece := stream.read(_PIECE):
                        out.write(piece)
            archive = folder / "image.tar"
            with archive.open("wb") as out:
                ordered = [(diff_id, layers[diff_id]) for diff_id in image.config.diff_ids]
                write_docker_archive(out, json.loads(dump_config(image.config)), ordered, tag)
            for path in layers.values():
                path.unlink(missing_ok=True)
            self._engine.load(archive, tag)


def tag_of(config: ImageConfig, layers: Sequence[Layer], *more: str) -> str:
    """What the image of some layers is called, and of one that a step put on top of them."""
    made_of = [layer.identity for layer in layers]
    return f"{NAME}:{fingerprint([sorted(config.env.items()), made_of, more])[:32]}"

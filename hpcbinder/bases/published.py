"""Bases for a registry: what one who can bootstrap has, for those who cannot."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from hpcbinder.bases.kept import BaseImage
from hpcbinder.bases.recipe import RECIPE
from hpcbinder.image import DockerArchive
from hpcbinder.model import ImageConfig


@dataclass(frozen=True)
class PublishedBase:
    """A base that says by which recipe it was made; implements `OciImage`. Its layer is the very one that images here
    stand on, so that whoever pulls it has the same layers and the same sets of Debian packages.

    Attributes:
        base: The base.
        recipe: Key of its recipe (`recipe.base_key`).
    """

    base: BaseImage
    recipe: str

    @property
    def config(self) -> ImageConfig:
        config = self.base.config
        return replace(config, labels={**config.labels, RECIPE: self.recipe})

    def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
        """See `OciImage.layers`."""
        yield from DockerArchive(self.base.archive).layers(wanted)

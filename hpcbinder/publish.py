"""Pushing an image of the catalog, or the base that images stand on, to a registry."""

from __future__ import annotations

import platform
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from hpcbinder.bases import Bases
from hpcbinder.builders import ASSEMBLED, assembled_image
from hpcbinder.catalog import Catalog
from hpcbinder.config import Config
from hpcbinder.engine import pick_engine
from hpcbinder.errors import BuildError, RegistryError
from hpcbinder.image import ARCHITECTURES, OciImage, SquashedImage
from hpcbinder.model import Entry, ImageConfig
from hpcbinder.progress import Reporter
from hpcbinder.registry import Reference, Registry
from hpcbinder.runtime import PLAIN
from hpcbinder.sif import primary_partition


def may_push(reference: Reference, config: Config, reporter: Reporter) -> None:
    """Ask a registry whether it would take a push from us, before the work for it is begun.

    Raises:
        RegistryError: It would not, or there is no way to it.
    """
    Registry(config.site, config.registry, reporter=reporter).may_push(reference)


@dataclass(frozen=True)
class Pushed:
    """What a push made.

    Attributes:
        reference: With its tag.
        digest: The manifest's.
    """

    reference: str
    digest: str


def publish(entry: Entry, reference: Reference, config: Config, catalog: Catalog, reporter: Reporter) -> Pushed:
    """Push an image, and note in the catalog that it was.

    Its layers are those in the engine that built it, or what it was assembled of. When they are there no more, the
    files of the catalog's squashfs become an image of one layer.

    Args:
        reference: Where to; without a tag it gets the hex digits of the image's id.

    Raises:
        RegistryError: The registry does not take it.
        ConvertError, CatalogError: The image cannot be read, or the store not written.
    """
    place = reference if reference.tag else reference.tagged(entry.id.rpartition("-")[2])
    with catalog.temporary() as scratch:
        image = _Dated(_content(entry, config, catalog, scratch, reporter), entry)
        registry = Registry(config.site, config.registry, reporter=reporter)
        digest = registry.push(image, place, scratch=scratch, known=catalog.blobs_dir)
    reporter.phase("push", f"{place}@{digest}")
    catalog.pushed(entry.id, str(place), digest)
    return Pushed(str(place), digest)


def publish_base(suite: str, reference: Reference, config: Config, catalog: Catalog, reporter: Reporter) -> Pushed:
    """Push the base that mmdebstrap makes of a Debian suite, made if it is not there yet. Where `bases.images` names it
    as `debian:SUITE-slim`, images are assembled on it by people who cannot make one.

    Args:
        reference: Where to; without a tag it gets the suite and the key of the base's recipe.

    Raises:
        BuildError: There is none, and it cannot be made here.
        RegistryError: The registry does not take it.
    """
    registry = Registry(config.site, config.registry, reporter=reporter)
    registry.may_push(reference)  # before the base is made, which takes a while
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    base = Bases(config, architecture, reporter).published(suite, catalog.bases_dir)
    place = reference if reference.tag else reference.tagged(f"{suite}-{base.recipe}")
    with catalog.temporary() as scratch:
        digest = registry.push(base, place, scratch=scratch, known=catalog.blobs_dir)
    reporter.phase("push", f"{place}@{digest}")
    return Pushed(str(place), digest)


def _content(entry: Entry, config: Config, catalog: Catalog, scratch: Path, reporter: Reporter) -> OciImage:
    """The image as the engine has it, or as it was assembled, or out of its squashfs."""
    if entry.image.get("engine") == ASSEMBLED:
        image = assembled_image(entry, catalog, config, reporter)
        return image or _squashed(entry, scratch, "layers it was assembled of are kept no more", reporter)
    # Entries of the first version do not say which it was.
    name = entry.image.get("engine", config.build.engine)
    try:
        engine = pick_engine(name, config)
        for ref in (entry.image["name"], entry.image["digest"]):
            held = engine.image(ref, scratch=scratch)
            if held is not None and held.config.diff_ids == entry.config.diff_ids:
                return held
        why = f"{engine.name} has the image no more"
    except BuildError as error:
        why = error.message
    return _squashed(entry, scratch, why, reporter)


def _squashed(entry: Entry, scratch: Path, why: str, reporter: Reporter) -> OciImage:
    reporter.phase("push", f"{why}: what is pushed is its squashfs, as one layer")
    for form in PLAIN:
        if form in entry.formats:
            return SquashedImage(Path(entry.formats[form]), entry.config, scratch)
    if "sif" in entry.formats:
        sif = Path(entry.formats["sif"])
        return SquashedImage(sif, entry.config, scratch, offset=primary_partition(sif)[0])
    raise RegistryError(f"nothing is left of {entry.id} to push", hint="build it again")


@dataclass(frozen=True)
class _Dated:
    """An image made at the time of its commit, by its configuration: two builds of it are one and the same then."""

    image: OciImage
    entry: Entry

    @property
    def config(self) -> ImageConfig:
        config, seconds = self.image.config, self.entry.timestamp
        return replace(
            config,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if seconds else config.created,
            labels={**config.labels, "org.hpcbinder.id": self.entry.id},
        )

    def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
        yield from self.image.layers(wanted)

"""An assembled image as one of registries and engines: its squashed layers as layers of tar.

They stay in their order, grouped by how often they change: the base is the very tar that engines have of it; the
server, what a step put there or changed, what a step that was run left, and the repository's content are a layer each;
packages are several, cut so that two images that have most packages in common have most of these layers in common.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hpcbinder.bases import Bases
from hpcbinder.builders.assembling.layer import Layer
from hpcbinder.catalog import Catalog, vouched
from hpcbinder.errors import BuildError
from hpcbinder.image import DockerArchive, OciImage, StackedImage
from hpcbinder.model import Entry, ImageConfig

MOST = 64
"""Layers that an image has at most besides the base's: Docker and its storage take about 125."""
_ALONE = 4 << 20
"""Bytes of a squashed package from which on it is a layer by itself."""
_TOGETHER = 8
"""Smaller packages that are a layer together, on average."""


def stacked(
    config: ImageConfig, base: OciImage | None, layers: Sequence[Layer], known: Path | None = None
) -> StackedImage:
    """An assembled image whose layers are tars.

    Args:
        config: What it is.
        base: What it stands on.
        layers: All others, the lowest first.
        known: See `StackedImage`.
    """
    return StackedImage(config, base, [[layer.path for layer in group] for group in _grouped(layers)], known)


def kept_image(entry: Entry, catalog: Catalog, bases: Bases) -> StackedImage | None:
    """An assembled image of the catalog, out of the layers that its store keeps; None if it keeps them no more.

    Raises:
        CatalogError: The store cannot be written.
    """
    packages = _packages(catalog)
    found: list[Layer] = []
    for identity in entry.config.diff_ids:
        path = packages.get(identity) or _kept(identity, catalog)
        if path is None:
            return None
        found.append(Layer(path, identity))
    base = _base(entry, catalog, bases)
    above = found[len(base.config.diff_ids) :] if base is not None else found
    return stacked(entry.config, base, above, catalog.blobs_dir)


def _packages(catalog: Catalog) -> Mapping[str, Path]:
    """Identity -> each squashed package that there is, in our store or a site's."""
    theirs = (path for store in catalog.site for path in store.glob("*/layers/*.squashfs") if vouched(path, store))
    paths = (*theirs, *catalog.path.glob("*/layers/*.squashfs"))
    return {Layer.of_package(path).identity: path for path in paths}


def _kept(identity: str, catalog: Catalog) -> Path | None:
    """A layer, compressed in whichever way."""
    digest = identity.removeprefix("sha256:")
    for folder in (catalog.layers_dir, *catalog.layers_below):
        for path in sorted(folder.glob(f"{digest}-*.squashfs")):
            if folder == catalog.layers_dir or vouched(path, folder.parent):
                return path
    return None


def _base(entry: Entry, catalog: Catalog, bases: Bases) -> OciImage | None:
    """What the image stands on, if its tars are there; else that is made of the squashed ones."""
    try:
        kept = bases.kept_image(entry.base, catalog.bases_dir)
    except BuildError:  # of a recipe that is not known any more
        return None
    if kept is None or entry.config.diff_ids[: len(kept.config.diff_ids)] != kept.config.diff_ids:
        return None
    return DockerArchive(kept.archive)


def _grouped(layers: Sequence[Layer]) -> list[list[Layer]]:
    """What becomes one layer together; neighbours only, so that of a file that several have the same one stays."""
    groups = list(_cut(layers))
    sizes = [sum(layer.path.stat().st_size for layer in group) for group in groups]
    while len(groups) > MOST:
        least = min(range(len(groups) - 1), key=lambda number: sizes[number] + sizes[number + 1])
        groups[least] += groups.pop(least + 1)
        sizes[least] += sizes.pop(least + 1)
    return groups


def _cut(layers: Sequence[Layer]) -> Iterator[list[Layer]]:
    """Where small packages are cut follows from each by itself: one more or less moves no other cut."""
    group: list[Layer] = []
    for layer in layers:
        alone = not layer.is_package or layer.path.stat().st_size >= _ALONE
        if group and alone:
            yield group
            group = []
        group.append(layer)
        if alone or hashlib.sha256(layer.identity.encode()).digest()[0] % _TOGETHER == 0:
            yield group
            group = []
    if group:
        yield group

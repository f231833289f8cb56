"""Which builder makes a plan's image, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.bases import Bases
from hpcbinder.builders.dockerfile import build_with_engine
from hpcbinder.builders.obstacle import ASSEMBLED, hint, obstacle
from hpcbinder.catalog import Catalog
from hpcbinder.config import Config
from hpcbinder.engine import pick_engine
from hpcbinder.errors import BuildError
from hpcbinder.image import OciImage
from hpcbinder.model import Checkout, Plan
from hpcbinder.progress import Reporter
from hpcbinder.runtime import mounting
from hpcbinder.squashfs import Options

WHEELS = "wheels"
"""Folder of a store."""


@dataclass(frozen=True)
class Built:
    """An image that was made.

    Attributes:
        name: Its name in the engine; of an assembled image the one it would have there.
        builder: Name of the engine, `none` for an assembled image.
        layers: Its layers squashed already, the lowest first; None if they are still to be taken out of the engine.
    """

    image: OciImage
    name: str
    builder: str
    layers: Sequence[Path] | None = None


def build_image(
    plan: Plan,
    checkout: Checkout,
    *,
    catalog: Catalog,
    scratch: Path,
    config: Config,
    options: Options,
    reporter: Reporter,
) -> Built:
    """Make the image of a plan as `build.engine` says: assembled where every step is data, or by an engine.

    Args:
        scratch: Folder for temporary files in the catalog; layers of an assembled image stay in it.
        options: How layers are squashed.

    Raises:
        BuildError: It cannot be made here, with what to do about it.
        FetchError: A package cannot be had.
        ConvertError: A layer cannot be written.
    """
    wanted = config.build.engine
    if wanted == ASSEMBLED and (reason := obstacle(plan)) is not None:
        raise BuildError(f"{plan.name} cannot be made without an engine: {reason}", hint=hint(plan))
    if wanted == "auto":
        reason = obstacle(plan)
        if reason is None and not mounting(config.runtime):
            # An engine runs what it built, and may be the only one here that runs anything.
            reason = "no runtime is here that runs images from their files (--engine none makes one all the same)"
        if reason is not None:
            reporter.phase("build", f"an engine is needed: {reason}")
    if wanted == ASSEMBLED or (wanted == "auto" and reason is None):
        return _assembled(plan, checkout, catalog, scratch, config, options, reporter)
    engine = pick_engine(wanted, config, reporter)
    image = build_with_engine(
        plan, checkout, engine, bases_dir=catalog.bases_dir, scratch=scratch, config=config, reporter=reporter
    )
    return Built(image, image.name, engine.name)


def _assembled(
    plan: Plan,
    checkout: Checkout,
    catalog: Catalog,
    scratch: Path,
    config: Config,
    options: Options,
    reporter: Reporter,
) -> Built:
    from hpcbinder.builders.assembling import Assembler
    from hpcbinder.wheels import WheelStore

    reporter.phase("build", f"image {plan.id}: every step is data, no engine is needed")
    assembler = Assembler(
        Bases(config, plan.base.architecture, reporter),
        bases_dir=catalog.bases_dir,
        layers_dir=catalog.layers_dir,
        wheels=WheelStore(
            catalog.path / WHEELS,
            config.site,
            options,
            reporter,
            hosts=config.source.hosts,
            below=[store / WHEELS for store in catalog.site],
        ),
        options=options,
        scratch=scratch,
        reporter=reporter,
    )
    image = assembler.assemble(plan, checkout)
    return Built(image, image.name, ASSEMBLED, image.squashed)

"""What an image is made of, fetched ahead: so that a machine without a network can make it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hpcbinder.bases import Bases
from hpcbinder.builders.assembling.assemble import locked_of
from hpcbinder.builders.assembling.conda import target_of
from hpcbinder.builders.assembling.stores import CONDA, attainable, system_packages, wheel_store
from hpcbinder.builders.assembling.workshops import Workshops
from hpcbinder.builders.obstacle import obstacle
from hpcbinder.catalog import Catalog
from hpcbinder.conda import CondaStore
from hpcbinder.config import Config
from hpcbinder.convert import LayerCache
from hpcbinder.errors import BuildError
from hpcbinder.image import DockerArchive
from hpcbinder.model import LockedPackage, Plan
from hpcbinder.plan import conda_packages
from hpcbinder.progress import Reporter
from hpcbinder.squashfs import Options

_FETCHES = 8
"""Packages that come at the same time."""


def network_needed(plan: Plan) -> str | None:
    """Why a plan's image cannot be made without a network once everything is there, for a person; None if it can."""
    if (reason := obstacle(plan)) is not None:
        return f"{reason}, and may fetch something then"
    building = next((step for step in plan.steps if step.assembly is not None and step.assembly.sources), None)
    if building is not None:
        return f"step {building.name} builds packages, and only that tells what else they need"
    return None


def fetch_ahead(
    plan: Plan,
    *,
    catalog: Catalog,
    scratch: Path,
    config: Config,
    options: Options,
    reporter: Reporter,
    workshops: Workshops,
) -> None:
    """Have in the catalog's store what the assembler would fetch: the base, wheels, conda packages; Debian packages
    are installed already, if they were not before, for apt has to ask which they are.

    Args:
        scratch: Folder for unfinished files in the catalog.
        options: How layers are squashed.
        workshops: Install Debian packages.

    Raises:
        BuildError: The image cannot be made without a network, or the base or Debian packages cannot be had here.
        FetchError: A package cannot be had.
        ConvertError: The store cannot be written.
    """
    wanted = attainable(
        plan,
        catalog=catalog,
        scratch=scratch,
        config=config,
        options=options,
        reporter=reporter,
        workshops=workshops,
    )
    if (reason := network_needed(wanted)) is not None:
        raise BuildError(
            f"{plan.name} cannot be built on a node without a network: {reason}", hint="build it here, without --on"
        )
    base = Bases(config, plan.base.architecture, reporter).image(plan.base, catalog.bases_dir)
    wheels = wheel_store(catalog, config, options, reporter)
    for step in plan.steps:
        if step.assembly is not None and step.assembly.wheels:
            wheels.fetch(*locked_of(step, step.assembly, plan), scratch=scratch)
    store = CondaStore(
        catalog.path / CONDA, config.site, options, reporter, below=[each / CONDA for each in catalog.site]
    )
    if packages := list(_conda(plan, store)):
        reporter.phase("fetch", f"{len(packages)} conda package{'s' if len(packages) != 1 else ''} to be squashed")
        with ThreadPoolExecutor(_FETCHES, thread_name_prefix="fetch") as pool:
            for fetched in [pool.submit(store.fetched, package, scratch) for package in packages]:
                fetched.result()
    if steps := [step for step in plan.steps if step.assembly is not None and step.assembly.system]:
        cache = LayerCache(catalog.layers_dir, options, below=catalog.layers_below)
        paths = cache.ensure(DockerArchive(base.archive), scratch, reporter)
        below = [(path, path.name.partition("-")[0]) for path in paths]
        debian = system_packages(catalog, scratch, config, options, reporter, workshops)
        for step in steps:
            debian.layer(step, plan.base, below)


def _conda(plan: Plan, store: CondaStore) -> Iterator[LockedPackage]:
    """The conda packages that have no layer yet, and the Python among them all, which may be what compiles."""
    for step in plan.steps:
        if step.assembly is not None and step.assembly.conda:
            packages = conda_packages(step.data[step.assembly.conda])
            missing = store.missing(packages, target_of(plan, step.assembly.prefix, step.assembly.python))
            yield from missing
            yield from (each for each in packages if each.name == "python" and each not in missing)

"""An assembler with what the configuration and the catalog give it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hpcbinder.bases import Bases
from hpcbinder.builders.assembling.assemble import Assembler
from hpcbinder.builders.assembling.conda import CondaEnvironments
from hpcbinder.builders.assembling.sources import SourcePackages
from hpcbinder.builders.assembling.system import SystemPackages
from hpcbinder.builders.assembling.workshops import Workshops
from hpcbinder.catalog import Catalog, vouched
from hpcbinder.conda import Channels, CondaStore
from hpcbinder.config import Config
from hpcbinder.convert import LayerCache
from hpcbinder.lock import Resolver
from hpcbinder.model import Plan, Step
from hpcbinder.progress import Reporter
from hpcbinder.squashfs import Options
from hpcbinder.wheels import WheelStore

WHEELS = "wheels"
BUILT = "built"
SYSTEM = "debian"
CONDA = "conda"
"""Folders of a store."""


def assembler(
    architecture: str,
    *,
    catalog: Catalog,
    scratch: Path,
    config: Config,
    options: Options,
    reporter: Reporter,
    workshops: Workshops,
) -> Assembler:
    """One whose layers are kept in the catalog's store, and found in those of its sites too.

    Args:
        architecture: OCI name of what images are for.
        workshops: Run what packages want to have run.
        scratch: Folder for unfinished files in the catalog.
        options: How layers are squashed.

    Raises:
        CatalogError: The store cannot be written.
    """
    bases = Bases(config, architecture, reporter)
    return Assembler(
        bases,
        bases_dir=catalog.bases_dir,
        layers_dir=catalog.layers_dir,
        layers_below=catalog.layers_below,
        wheels=wheel_store(catalog, config, options, reporter),
        system=system_packages(catalog, scratch, config, options, reporter, workshops),
        sources=source_packages(catalog, scratch, config, options, reporter, workshops),
        conda=conda_environments(catalog, scratch, config, options, reporter, workshops),
        options=options,
        scratch=scratch,
        reporter=reporter,
        known=catalog.blobs_dir,
    )


def system_packages(
    catalog: Catalog, scratch: Path, config: Config, options: Options, reporter: Reporter, workshops: Workshops
) -> SystemPackages:
    """The sets of Debian packages of a catalog's store, and below it those of its sites."""
    return SystemPackages(
        catalog.path / SYSTEM,
        [store / SYSTEM for store in catalog.site if vouched(store / SYSTEM, store)],
        cache=LayerCache(catalog.layers_dir, options, below=catalog.layers_below),
        site=config.site,
        workshops=workshops,
        options=options,
        scratch=scratch,
        reporter=reporter,
    )


def attainable(
    plan: Plan,
    *,
    catalog: Catalog,
    scratch: Path,
    config: Config,
    options: Options,
    reporter: Reporter,
    workshops: Workshops,
) -> Plan:
    """The plan as it can be assembled here: its Debian packages are data only where something installs them, or where
    they were installed before.

    Args:
        workshops: Install them.

    Raises:
        BuildError: The base cannot be had.
    """
    if not any(step.assembly is not None and step.assembly.system for step in plan.steps):
        return plan
    packages = system_packages(catalog, scratch, config, options, reporter, workshops)

    def known(step: Step) -> bool:
        if packages.empty:
            return False
        base = Bases(config, plan.base.architecture, reporter).image(plan.base, catalog.bases_dir)
        return packages.known(step, plan.base, [diff_id.removeprefix("sha256:") for diff_id in base.config.diff_ids])

    def one(step: Step) -> Step:
        if step.assembly is None or not step.assembly.system or known(step):
            return step
        reason = packages.obstacle(plan.base)
        return step if reason is None else replace(step, assembly=None, reason=f"{step.reason}; {reason}")

    return replace(plan, steps=tuple(one(step) for step in plan.steps))


def conda_environments(
    catalog: Catalog,
    scratch: Path,
    config: Config,
    options: Options,
    reporter: Reporter,
    workshops: Workshops,
) -> CondaEnvironments:
    """Environments of the squashed conda packages of a catalog's store, and below it those of its sites."""
    below = [store / CONDA for store in catalog.site]
    return CondaEnvironments(
        CondaStore(catalog.path / CONDA, config.site, options, reporter, below=below),
        channels=Channels(config.conda).urls([])[0],
        cache=LayerCache(catalog.layers_dir, options, below=catalog.layers_below),
        workshops=workshops,
        options=options,
        scratch=scratch,
        reporter=reporter,
    )


def source_packages(
    catalog: Catalog, scratch: Path, config: Config, options: Options, reporter: Reporter, workshops: Workshops
) -> SourcePackages:
    """The wheels that were built for a catalog's owner: no site's, for nobody but who built one can vouch for it."""
    folder = catalog.path / BUILT
    return SourcePackages(
        folder,
        resolve=Resolver(catalog.path, config.site, refresh=False, reporter=reporter),
        wheels=wheel_store(catalog, config, options, reporter),
        built=WheelStore(folder, config.site, options, reporter),
        workshops=workshops,
        site=config.site,
        source=config.source,
        options=options,
        scratch=scratch,
        reporter=reporter,
    )


def wheel_store(catalog: Catalog, config: Config, options: Options, reporter: Reporter) -> WheelStore:
    """The squashed wheels of a catalog's store, and below it those of its sites."""
    return WheelStore(
        catalog.path / WHEELS,
        config.site,
        options,
        reporter,
        hosts=config.source.hosts,
        below=[store / WHEELS for store in catalog.site],
    )

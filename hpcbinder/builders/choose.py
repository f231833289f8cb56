"""Which builder makes a plan's image, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hpcbinder.bases import Bases
from hpcbinder.builders.asked import placed
from hpcbinder.builders.dockerfile import build_with_engine
from hpcbinder.builders.obstacle import ASSEMBLED, hint, obstacle, only_assembled, preparing
from hpcbinder.catalog import Catalog
from hpcbinder.config import Config
from hpcbinder.engine import Engine, pick_engine, site_secrets
from hpcbinder.errors import BuildError, RunError
from hpcbinder.image import OciImage
from hpcbinder.model import Checkout, Entry, Plan
from hpcbinder.progress import Reporter
from hpcbinder.runtime import mounting, workshop
from hpcbinder.squashfs import Options

if TYPE_CHECKING:
    from hpcbinder.builders.assembling import Workshops
    from hpcbinder.builders.by_workshop import WorkshopRunner
    from hpcbinder.builders.in_engine import EngineRunner


@dataclass(frozen=True)
class Built:
    """An image that was made.

    Attributes:
        name: Its name in the engine; of an assembled image the one it would have there.
        builder: Name of the engine, `none` for an assembled image.
        layers: Its layers squashed already, the lowest first; None if they are still to be taken out of the engine.
        tars: The image with its layers as tars, where they are squashed already.
        ran: Of an assembled image the steps that had to be run -> who ran them; "" for what was run before.
    """

    image: OciImage
    name: str
    builder: str
    layers: Sequence[Path] | None = None
    tars: OciImage | None = None
    ran: Mapping[str, str] = field(default_factory=dict)


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
    """Make the image of a plan as `build.engine` says: assembled, with what has to be run on top, or by an engine.

    Args:
        scratch: Folder for temporary files in the catalog.
        options: How layers are squashed.

    Raises:
        BuildError: It cannot be made here, with what to do about it.
        FetchError: A package cannot be had.
        ConvertError: A layer cannot be written.
    """
    wanted, bound = config.build.engine, only_assembled(plan)
    reason = obstacle(plan, running=True)
    if wanted == "auto" and bound is None and reason is None and not mounting(config.runtime):
        # An engine runs what it built, and may be the only one here that runs anything.
        reason = obstacle(plan) or (
            "no runtime is here that runs images from their files (--engine none makes one all the same)"
        )
    if reason is not None and (wanted == ASSEMBLED or bound is not None):
        why = f"without an engine: {reason}" if bound is None else f"here: {bound}, but {reason}"
        raise BuildError(f"{plan.name} cannot be made {why}", hint=hint(plan))
    if reason is None and (wanted in (ASSEMBLED, "auto") or bound is not None):
        return _Assembling(plan, checkout, catalog, scratch, config, options, reporter).built()
    if wanted == "auto":
        reporter.phase("build", f"an engine is needed: {reason}")
    engine = pick_engine(wanted, config, reporter)
    try:
        image = build_with_engine(
            plan, checkout, engine, bases_dir=catalog.bases_dir, scratch=scratch, config=config, reporter=reporter
        )
    except BuildError as error:
        if (told := placed(error, plan, checkout)) is None:
            raise
        raise told from error
    return Built(image, image.name, engine.name)


def fetch_ahead(
    plan: Plan, *, catalog: Catalog, scratch: Path, config: Config, options: Options, reporter: Reporter
) -> None:
    """Have in the catalog's store what assembling a plan's image would fetch (see `assembling.fetch_ahead`)."""
    from hpcbinder.builders import assembling
    from hpcbinder.builders.in_engine import workshops_here

    wanted = config.build.engine
    if wanted not in (ASSEMBLED, "auto"):
        raise BuildError(
            f"{wanted} fetches while it builds, and nodes are not taken to have a network",
            hint="build it here, without --on; or without an engine (--engine none)",
        )
    assembling.fetch_ahead(
        plan,
        catalog=catalog,
        scratch=scratch,
        config=config,
        options=options,
        reporter=reporter,
        workshops=workshops_here(config, catalog, scratch, reporter),
    )


def assembled_image(entry: Entry, catalog: Catalog, config: Config, reporter: Reporter) -> OciImage | None:
    """An image of the catalog that was assembled, its layers as tars; None if it was not, or they are kept no more.

    Raises:
        CatalogError: The store cannot be written.
    """
    if entry.image.get("engine") != ASSEMBLED:
        return None
    from hpcbinder.builders.assembling import kept_image

    return kept_image(entry, catalog, Bases(config, entry.base.architecture, reporter))


@dataclass(frozen=True)
class _Assembling:
    """One image that is assembled."""

    plan: Plan
    checkout: Checkout
    catalog: Catalog
    scratch: Path
    config: Config
    options: Options
    reporter: Reporter

    def built(self) -> Built:
        """The image; what cannot be built apart after all is left to whoever runs whole steps."""
        from hpcbinder.builders.assembling import Unbuildable
        from hpcbinder.builders.in_engine import workshops_here

        plan = self.plan
        workshops = workshops_here(self.config, self.catalog, self.scratch, self.reporter, pick=lambda: self._picked)
        while True:
            try:
                return self._built(plan, workshops)
            except Unbuildable as error:
                step = plan.steps[error.step]
                self.reporter.phase("build", f"step {step.name} is run as a whole: {error.message}")
                run = replace(step, assembly=None)
                plan = replace(plan, steps=(*plan.steps[: error.step], run, *plan.steps[error.step + 1 :]))

    def _built(self, wanted: Plan, workshops: Workshops) -> Built:
        from hpcbinder.builders.assembling import assembler, attainable

        plan = attainable(
            wanted,
            catalog=self.catalog,
            scratch=self.scratch,
            config=self.config,
            options=self.options,
            reporter=self.reporter,
            workshops=workshops,
        )
        reason = obstacle(plan)
        runner = None if reason is None else self._runner(plan, reason, lost=_lost(wanted, plan))
        if runner is None:
            self.reporter.phase("build", f"image {plan.id}: every step is data")
        else:
            self.reporter.phase("build", f"image {plan.id}: assembled, and {runner.name} runs what has to be run")
        assembling = assembler(
            plan.base.architecture,
            catalog=self.catalog,
            scratch=self.scratch,
            config=self.config,
            options=self.options,
            reporter=self.reporter,
            workshops=workshops,
        )
        try:
            image = assembling.assemble(plan, self.checkout, runner)
        except BuildError as error:
            if (told := placed(error, plan, self.checkout)) is None:
                raise
            raise told from error
        finally:
            if runner is not None:
                runner.close()
        return Built(image, image.name, ASSEMBLED, image.squashed, image.tars, image.ran)

    def _runner(self, plan: Plan, reason: str, *, lost: bool) -> EngineRunner | WorkshopRunner:
        """Who runs what has to be run.

        Args:
            plan: With Debian packages as data only if they can be installed here, or were.
            reason: What has to be run.
            lost: Only an engine can run that here.
        """
        from hpcbinder.builders.by_workshop import WorkshopRunner

        wanted = self.config.build.engine
        if wanted in (ASSEMBLED, "auto"):
            try:
                if lost:
                    raise RunError("")  # the reason says why
                found = workshop(self.config, self.reporter)
                if preparing(plan) and not found.fakeroot:
                    raise RunError(f"{found.description}: dpkg needs several ids", hint="subordinate ids (/etc/subuid)")
                site = Bases(self.config, plan.base.architecture, self.reporter).site(plan.base)
                return WorkshopRunner(
                    found,
                    plan,
                    self.checkout,
                    secrets=site_secrets(site, suite=plan.base.suite),
                    scratch=self.scratch,
                    reporter=self.reporter,
                )
            except RunError as error:
                why = "; ".join(filter(None, (reason, error.message)))
                if wanted == ASSEMBLED:
                    hints = "; ".join(filter(None, (error.hint, hint(plan))))
                    raise BuildError(f"{plan.name} cannot be made without an engine: {why}", hint=hints) from error
                self.reporter.phase("build", f"an engine is needed: {why}")
        return self._engine(plan)

    @cached_property
    def _picked(self) -> Engine:
        """The engine, looked for once.

        Raises:
            BuildError: There is none.
        """
        return pick_engine(self.config.build.engine, self.config, self.reporter)

    def _engine(self, plan: Plan) -> EngineRunner:
        """The engine that runs steps of a plan.

        Raises:
            BuildError: There is none.
        """
        from hpcbinder.builders.in_engine import EngineRunner

        return EngineRunner(
            self._picked,
            plan,
            self.checkout,
            config=self.config,
            known=self.catalog.blobs_dir,
            scratch=self.scratch,
            reporter=self.reporter,
        )


def _lost(plan: Plan, here: Plan) -> bool:
    """Whether a step that is data elsewhere has to be run here."""
    pairs = zip(plan.steps, here.steps, strict=True)
    return any(step.assembly is not None and now.assembly is None for step, now in pairs)

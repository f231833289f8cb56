"""Steps of a plan run by an engine, on the layers that were assembled so far."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from hpcbinder.bases import Bases
from hpcbinder.builders.assembling import Ready
from hpcbinder.builders.in_engine.layers import LayersInEngine, tag_of
from hpcbinder.config import Config
from hpcbinder.engine import Engine, EngineImage, ensure_tools_image, site_secrets
from hpcbinder.errors import BuildError
from hpcbinder.model import Checkout, Plan
from hpcbinder.plan import one_step, step_titles, write_step
from hpcbinder.progress import Reporter


class EngineRunner:
    """Runs steps in an engine; implements `StepRunner`.

    Args:
        known: Folder that keeps DiffIDs (see `StackedImage`).
        scratch: Folder for temporary files, large enough for an image.
    """

    is_engine = True

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        checkout: Checkout,
        *,
        config: Config,
        known: Path,
        scratch: Path,
        reporter: Reporter,
    ) -> None:
        self._engine = engine
        self._plan = plan
        self._checkout = checkout
        site = Bases(config, plan.base.architecture, reporter).site(plan.base)
        self._secrets = site_secrets(site, suite=plan.base.suite)
        self._layers = LayersInEngine(engine, known, scratch, reporter)
        self._made: set[str] = set()
        self._scratch = scratch
        self._reporter = reporter

    @property
    def name(self) -> str:
        """The engine's."""
        return self._engine.name

    def run(self, ready: Ready) -> Path:
        """See `StepRunner.run`."""
        below = self._below(ready)
        step = self._plan.steps[ready.number]
        self._reporter.phase("build", f"step {step.name}: {self._engine.name}")
        text = one_step(
            self._plan,
            ready.number,
            below=below.name,
            tools_image=ensure_tools_image(self._engine, self._scratch),
        )

        def context(out: BinaryIO) -> None:
            write_step(self._plan, self._checkout, ready.number, out, dockerfile_text=text)

        # What a step made apart is taken over in part: nothing stands on the whole.
        tag = tag_of(ready.config, ready.layers, ready.identity, *(("apart",) if step.apart else ()))
        image = self._engine.build(
            context,
            tag=tag,
            secrets=self._secrets,
            log=lambda line: self._reporter.log("build", line),
            scratch=self._scratch,
            titles=step_titles(self._plan),
        )
        self._made.add(tag)
        return self._layers.added(image, below, self._scratch)

    def close(self) -> None:
        """Take away what no other build needs. The layers of an image that was loaded stay, under its name."""
        for tag in self._made:
            try:
                self._engine.remove(tag)
            except BuildError as error:
                self._reporter.log("build", f"{tag} stays in {self._engine.name}: {error.message}")

    def _below(self, ready: Ready) -> EngineImage:
        """The image that has all that comes before a step."""
        *before, last = ready.layers
        tag = tag_of(ready.config, before, last.identity)  # what the step before left, if it was run here just now
        found = self._engine.image(tag, scratch=self._scratch) if tag in self._made else None
        return found or self._layers.have(ready.config, ready.base, ready.layers)

"""Steps of a plan run by an engine, on the layers that were assembled so far."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from hpcbinder.bases import Bases
from hpcbinder.builders.assembling import Layer, Ready, stacked
from hpcbinder.config import Config
from hpcbinder.engine import Engine, EngineImage, ensure_tools_image, site_secrets
from hpcbinder.errors import BuildError, ConvertError
from hpcbinder.image import OciImage, dump_config, write_docker_archive
from hpcbinder.model import Checkout, ImageConfig, Plan, fingerprint
from hpcbinder.plan import one_step, step_titles, write_step
from hpcbinder.progress import Reporter

_NAME = "localhost/hpcbinder/assembled"
_PIECE = 1 << 20


class EngineRunner:
    """Runs steps in an engine; implements `StepRunner`.

    The layers so far are loaded as an image, named by what they are: whoever needs the same again finds it there, until
    it is old (`hpcbinder.gc`).

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
        self._known = known
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
        tag = self._tag(ready.config, ready.layers, ready.identity, *(("apart",) if step.apart else ()))
        image = self._engine.build(
            context,
            tag=tag,
            secrets=self._secrets,
            log=lambda line: self._reporter.log("build", line),
            scratch=self._scratch,
            titles=step_titles(self._plan),
        )
        self._made.add(tag)
        return self._added(image, below)

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
        tag = self._tag(ready.config, before, last.identity)  # what the step before left, if it was run here just now
        if tag not in self._made:
            tag = self._tag(ready.config, ready.layers)
        found = self._engine.image(tag, scratch=self._scratch)
        if found is not None:
            return found
        whole = stacked(ready.config, ready.base, ready.layers[len(ready.base.config.diff_ids) :], self._known)
        self._reporter.phase("build", f"handing what is assembled so far to {self._engine.name}")
        try:
            self._load(whole, tag)
        except OSError as error:
            raise ConvertError(f"cannot be written: {error.strerror}", where=str(self._scratch)) from error
        found = self._engine.image(tag, scratch=self._scratch)
        if found is None:
            raise BuildError(f"{self._engine.name} loaded {tag}, but does not have it")
        return found

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

    def _added(self, image: EngineImage, below: EngineImage) -> Path:
        """The layer that an image has on top of another."""
        count = len(below.config.diff_ids)
        new = image.config.diff_ids[count:]
        if image.config.diff_ids[:count] != below.config.diff_ids or len(new) > 1:
            raise BuildError(f"{self._engine.name} made other layers than the step's own")
        handle, name = tempfile.mkstemp(prefix="step-", suffix=".tar", dir=self._scratch)
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

    @staticmethod
    def _tag(config: ImageConfig, layers: Sequence[Layer], *more: str) -> str:
        """What the image of some layers is called, and of one that a step put on top of them."""
        made_of = [layer.identity for layer in layers]
        return f"{_NAME}:{fingerprint([sorted(config.env.items()), made_of, more])[:32]}"

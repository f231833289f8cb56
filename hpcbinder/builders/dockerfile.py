"""The builder that hands a Dockerfile to an engine."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from hpcbinder.bases import Bases
from hpcbinder.builders.environment import Environment
from hpcbinder.builders.own import build_own
from hpcbinder.config import Config
from hpcbinder.engine import Engine, EngineImage, ensure_tools_image, site_secrets
from hpcbinder.model import Checkout, Plan
from hpcbinder.plan import dockerfile, server_fingerprint, server_point, stage_name, step_titles, write_context
from hpcbinder.progress import Reporter


def build_with_engine(
    plan: Plan,
    checkout: Checkout,
    engine: Engine,
    *,
    bases_dir: Path,
    scratch: Path,
    config: Config,
    reporter: Reporter,
) -> EngineImage:
    """Build the image of a plan.

    The server and the environment are images of their own, tagged by what they are made of: images that have the same
    then hold the very same layers, also after somebody emptied the engine's build cache.

    Args:
        bases_dir: Where bootstrapped bases are kept.
        scratch: Folder for temporary files, large enough for an exported image.

    Raises:
        BuildError: A base, the engine or a step failed.
    """
    if plan.own is not None:
        return build_own(
            plan,
            plan.own,
            checkout,
            engine,
            bases_dir=bases_dir,
            scratch=scratch,
            config=config,
            reporter=reporter,
        )
    bases = Bases(config, plan.base.architecture, reporter)
    base = bases.image(plan.base, bases_dir)
    engine.load(base.archive, base.tag)
    for step in plan.steps:
        if step.image and engine.image(step.image) is None:
            kept = bases.image_of(step, plan.base.suite, bases_dir)
            engine.load(kept.archive, kept.tag)
    tools_image = ensure_tools_image(engine, scratch)
    secrets = site_secrets(bases.site(plan.base), suite=plan.base.suite)

    server_tag = f"localhost/hpcbinder/server:{server_fingerprint(plan, base.config.digest)[:32]}"
    environment = Environment.of(plan, server_tag)

    def run(tag: str, server_image: str | None, until: int | None) -> EngineImage:
        text = dockerfile(
            plan,
            base_image=base.tag,
            tools_image=tools_image,
            server_image=server_image,
            ready=environment.ready,
        )

        def context(out: BinaryIO) -> None:
            write_context(plan, checkout, text, out, until=until)

        return engine.build(
            context,
            tag=tag,
            target=None if until is None else stage_name(plan, until),
            secrets=secrets,
            log=lambda line: reporter.log("build", line),
            scratch=scratch,
            titles=step_titles(plan),
        )

    if engine.image(server_tag) is None:
        reporter.phase("build", f"server environment (JupyterLab) on {plan.base.name}, shared by all images on it")
        run(server_tag, None, server_point(plan))
    environment.look(lambda tag: engine.image(tag) is not None)
    if summary := environment.summary():
        reporter.phase("build", summary)
    for point in environment.missing():
        reporter.phase("build", f"environment, step {point} of {max(environment.tags)}: {plan.steps[point - 1].reason}")
        run(environment.tags[point], server_tag, point)
        environment.ready[point] = environment.tags[point]
    reporter.phase("build", f"image {plan.id}: {len(plan.steps)} steps")
    return run(f"localhost/hpcbinder/{plan.name}:{plan.id.rsplit('-', 1)[1]}", server_tag, None)

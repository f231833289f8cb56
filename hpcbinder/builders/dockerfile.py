"""The builder that hands a Dockerfile to an engine."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from hpcbinder.bases import ensure_base
from hpcbinder.config import Config
from hpcbinder.engine import Engine, EngineImage, ensure_tools_image, site_secrets
from hpcbinder.model import Checkout, Plan, Stage, fingerprint
from hpcbinder.plan import dockerfile, step_titles, write_context
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

    The server environment is an image of its own, tagged by what it is made of: every image on the same base then holds
    the very same layer, also after somebody emptied the engine's build cache. Names begin with `localhost/`, so that no
    engine ever asks a registry for one that is missing.

    Args:
        bases_dir: Where bootstrapped bases are kept.
        scratch: Folder for temporary files, large enough for an exported image.

    Raises:
        BuildError: A base, the engine or a step failed.
    """
    shared = [store / bases_dir.name for store in config.store.site]
    base = ensure_base(plan.base, folder=bases_dir, site=config.site, reporter=reporter, shared=shared)
    engine.load(base.archive, base.tag)
    tools_image = ensure_tools_image(engine, scratch)
    secrets = site_secrets(config.site, suite=plan.base.suite)

    def run(tag: str, server_image: str | None, target: str | None) -> EngineImage:
        text = dockerfile(plan, base_image=base.tag, tools_image=tools_image, server_image=server_image)

        def context(out: BinaryIO) -> None:
            write_context(plan, checkout, text, out, server_only=target is not None)

        return engine.build(
            context,
            tag=tag,
            target=target,
            secrets=secrets,
            log=lambda line: reporter.log("build", line),
            scratch=scratch,
            titles=step_titles(plan),
        )

    server_steps = [step for step in plan.steps if step.stage is Stage.SERVER]
    server_tag = f"localhost/hpcbinder/server:{fingerprint([base.config.digest, server_steps])[:16]}"
    if engine.image(server_tag, scratch=scratch) is None:
        reporter.phase("build", f"server environment (JupyterLab) on {plan.base.name}, shared by all images on it")
        run(server_tag, None, "server")
    reporter.phase("build", f"image {plan.id}: {len(plan.steps)} steps")
    return run(f"localhost/hpcbinder/{plan.name}:{plan.id.rsplit('-', 1)[1]}", server_tag, None)

"""The builder that hands a repository's own Dockerfile to an engine, and puts our files and labels on top."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

from hpcbinder.bases import Bases
from hpcbinder.config import Config, SiteConfig
from hpcbinder.contract import COMMIT, ENTRYPOINT, MANIFEST
from hpcbinder.engine import Engine, EngineImage, Foreign
from hpcbinder.model import Checkout, OwnDockerfile, Plan
from hpcbinder.plan import commit_text, entrypoint_files, manifest, on_own, write_files, write_own_context
from hpcbinder.progress import Reporter


def build_own(
    plan: Plan,
    own: OwnDockerfile,
    checkout: Checkout,
    engine: Engine,
    *,
    bases_dir: Path,
    scratch: Path,
    config: Config,
    reporter: Reporter,
) -> EngineImage:
    """Build a repository's own Dockerfile.

    The images that it stands on are loaded under names of ours beforehand: the engine asks no registry. Its steps see
    neither credentials nor caches of ours; of the site, only proxies, as build arguments that no image keeps.

    Args:
        own: The plan's `own`.
        bases_dir: Where images from registries are kept.
        scratch: Folder for temporary files, large enough for an exported image.

    Raises:
        BuildError: An image cannot be had, or a step failed.
    """
    bases = Bases(config, plan.base.architecture, reporter)
    for image in own.images:
        if engine.image(image.tag) is None:
            kept = bases.outside_image(image, bases_dir)
            engine.load(kept.archive, kept.tag)

    def log(line: str) -> None:
        reporter.log("build", line)

    def repository(out: BinaryIO) -> None:
        write_own_context(plan, checkout, own, out)

    tail = plan.id.rsplit("-", 1)[1]
    # No image of ours has such a tag, whatever the repository is called.
    inner = f"localhost/hpcbinder/own:{plan.name}-{tail}"
    reporter.phase("build", f"image {plan.id}: {own.path} of the repository")
    # The site's last: no argument of a repository's takes the place of one.
    foreign = Foreign(own.path, {**own.arguments, **_proxies(config.site)})
    engine.build(repository, tag=inner, log=log, scratch=scratch, foreign=foreign)

    files = {f"content{MANIFEST}": manifest(plan)}
    if checkout.history is not None:
        files[f"content{COMMIT}"] = commit_text(checkout.history)
    files |= {f"content/{path}": text for path, text in entrypoint_files().items()}

    def ours(out: BinaryIO) -> None:
        write_files(plan.timestamp, {"Dockerfile": on_own(plan, inner), **files}, [f"content{ENTRYPOINT}"], out)

    return engine.build(ours, tag=f"localhost/hpcbinder/{plan.name}:{tail}", log=log, scratch=scratch)


def _proxies(site: SiteConfig) -> dict[str, str]:
    """The predefined build arguments (docs.docker.com, "Predefined ARGs"), without what is nobody else's business."""
    values = {"http_proxy": site.http_proxy, "https_proxy": site.https_proxy, "no_proxy": site.no_proxy}
    found: dict[str, str] = {}
    for name, value in values.items():
        if value:
            text = re.sub(r"://[^/@]*@", "://", value if isinstance(value, str) else ",".join(value))
            found |= {name: text, name.upper(): text}
    return found

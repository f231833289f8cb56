"""A base that is there when asked for: found in the cache, or made once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpcbinder.bases import recipe
from hpcbinder.bases.kept import BaseImage, Parts, ensure_kept
from hpcbinder.bases.mmdebstrap import Mmdebstrap
from hpcbinder.bases.pulled import pull_base
from hpcbinder.bases.rootfs import tidy
from hpcbinder.config import RegistryConfig, SiteConfig, mirrors
from hpcbinder.debian import sources_list
from hpcbinder.errors import BuildError
from hpcbinder.model import BaseRef
from hpcbinder.progress import Reporter
from hpcbinder.registry import Registry


def ensure_base(
    ref: BaseRef,
    *,
    folder: Path,
    site: SiteConfig,
    reporter: Reporter,
    shared: Sequence[Path] = (),
    settings: RegistryConfig | None = None,
) -> BaseImage:
    """The base of a plan, made if it is not there yet: bootstrapped from Debian's packages, or pulled.

    A base stays as it is until its folder (`folder/KEY`) is removed: then the next build makes it anew, with newer
    packages.

    Args:
        folder: Where bases are kept.
        site: Mirrors, proxies and certificates for the downloads; nothing of them stays in the base.
        shared: Read-only folders of other stores to look in first.
        settings: Of registries, for a base that is made of an image from one.

    Raises:
        BuildError: It cannot be made here, with what to do about it.
    """

    def make(scratch: Path) -> Parts:
        if ref.image:
            reporter.phase("build", f"base {ref.name}: pulling {ref.image} (once)")
            return pull_base(ref, scratch, Registry(site, settings or RegistryConfig(), reporter=reporter))
        reporter.phase("build", f"base {ref.name}: bootstrapping from Debian's packages (once)")
        return _bootstrap(ref, scratch, site, reporter)

    return ensure_kept(
        recipe.base_key(ref),
        recipe.base_tag(ref),
        what="the base",
        folder=folder,
        shared=shared,
        reporter=reporter,
        make=make,
    )


def _bootstrap(ref: BaseRef, scratch: Path, site: SiteConfig, reporter: Reporter) -> Parts:
    layer_path = scratch / "layer.tar"
    with layer_path.open("wb") as out:
        layer = Mmdebstrap().bootstrap(
            ref.suite,
            architecture=recipe.ARCHITECTURES[ref.architecture],
            packages=recipe.packages(ref.suite),
            sources=sources_list(ref.suite, mirrors(site)),
            slim=recipe.SLIM,
            site=site,
            epoch=recipe.EPOCH,
            take=lambda tar: tidy(tar, out, folders=recipe.FOLDERS, files=recipe.files(ref.suite), newest=recipe.EPOCH),
            log=lambda line: reporter.log("build", line),
        )
    if layer.python != ref.python:
        raise BuildError(f"Debian {ref.suite} came with Python {layer.python or '(none)'}, not {ref.python}")
    return recipe.config(ref), [(layer.diff_id, layer_path)]

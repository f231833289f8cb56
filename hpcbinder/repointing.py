"""Having the kernels of one image run another, under the names that notebooks know them by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hpcbinder.build import register
from hpcbinder.catalog import Catalog
from hpcbinder.config import Config
from hpcbinder.model import Entry, RegisteredKernel
from hpcbinder.progress import Reporter
from hpcbinder.register import job_of, kernels_folder
from hpcbinder.scheduler import Resources

_BELOW = ("share", "jupyter", "kernels")


def repoint(
    old: Entry,
    new: Entry,
    config: Config,
    catalog: Catalog,
    reporter: Reporter,
    *,
    beside: bool = False,
    prefix: Path | None = None,
    name: str | None = None,
) -> tuple[RegisteredKernel, ...]:
    """Register the kernels of an image that takes another's place.

    Args:
        beside: The old one's stay as they are, and the new one gets its own.
        prefix: Where its own go, see `register_kernels`.
        name: What its own are called.

    Returns:
        The kernels that now run the new image.

    Raises:
        RegisterError: There is no kernel in it, or a folder cannot be written.
        RunError: No runtime here can run it.
    """
    moved: list[RegisteredKernel] = []
    for folder, base, job in [] if beside else _places(old):
        place = _prefix(folder, config)
        if place is not None:
            moved += register(new, config, catalog, reporter, place[0], base, job)
            new = catalog.get(new.id)
    if not moved:
        return register(new, config, catalog, reporter, prefix, name)
    taken = {kernel.path for kernel in moved}
    with catalog.working():
        catalog.update(replace(old, registered=tuple(k for k in old.registered if k.path not in taken)))
    return tuple(moved)


def _places(entry: Entry) -> list[tuple[Path, str, Resources | None]]:
    """The folders that an image's kernels were registered in, with the name that was given (or derived) there, and the
    job that each start is."""
    found: dict[tuple[Path, str, Resources | None], None] = {}
    for kernel in entry.registered:
        path = Path(kernel.path)
        base = path.name
        if len(entry.kernels) > 1:
            # `register_kernels` put the kernel's own name behind it.
            ends = [f"-{each.name}" for each in entry.kernels if base.endswith(f"-{each.name}")]
            base = base.removesuffix(max(ends, key=len)) if ends else base
        found[(path.parent, base, job_of(path))] = None
    return list(found)


def _prefix(folder: Path, config: Config) -> tuple[Path | None] | None:
    """What `register_kernels` has to be given to write there; None if it cannot."""
    if folder.parts[-3:] == _BELOW:
        return (folder.parents[2],)
    return (None,) if folder == kernels_folder(config) else None

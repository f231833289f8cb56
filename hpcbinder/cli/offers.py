"""What `hpcbinder register` does besides kernels: environments of a hub, modules."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcbinder.cli.session import Session
from hpcbinder.errors import UsageError

if TYPE_CHECKING:
    from hpcbinder.cli.jobs import Job
    from hpcbinder.model import Entry
    from hpcbinder.register import Published, RegisteredModule

Function = Callable[..., Any]

_HUB = {"title": "--title", "description": "--description", "icon": "--icon", "path": "--open", "groups": "--group"}


@dataclass(frozen=True)
class Offered:
    """What was said about a hub's environment; None and () were not said."""

    title: str | None
    description: str | None
    icon: Path | None
    path: str | None
    groups: tuple[str, ...]
    export: str | None

    def refuse(self) -> None:
        """Without --jupyterhub there is nothing that these are about.

        Raises:
            UsageError: One was given.
        """
        for name, flag in {**_HUB, "export": "--export"}.items():
            if getattr(self, name):
                raise UsageError(f"{flag} is about an environment of a hub", hint="add --jupyterhub")


def hub_options(function: Function) -> Function:
    """`--jupyterhub` and what goes with it, as the argument `offered`."""

    @functools.wraps(function)
    def collected(*args: Any, **kwargs: Any) -> Any:
        names = ("title", "description", "icon", "path", "groups", "export")
        return function(*args, offered=Offered(**{name: kwargs.pop(f"hub_{name}") for name in names}), **kwargs)

    decorated: Function = collected
    for decorate in reversed(
        (
            click.option(
                "--jupyterhub",
                is_flag=True,
                help="As an environment that JupyterHub offers: of the store, to all who use the hub.",
            ),
            click.option("--title", "hub_title", metavar="TEXT", help="What the hub calls it (the repository's name)."),
            click.option("--description", "hub_description", metavar="TEXT", help="A sentence that the hub shows."),
            click.option(
                "--icon",
                "hub_icon",
                metavar="FILE",
                type=click.Path(path_type=Path),
                help="PNG or SVG that the hub shows.",
            ),
            click.option(
                "--open", "hub_path", metavar="PATH", help="File of the repository that JupyterLab opens first."
            ),
            click.option(
                "--group",
                "hub_groups",
                metavar="NAME",
                multiple=True,
                help="Offer it to this Unix group only; can be repeated.",
            ),
            click.option(
                "--export",
                "hub_export",
                type=click.Choice(["wrapspawner", "kubespawner"]),
                help="Publish nothing; print it for another spawner's configuration.",
            ),
        )
    ):
        decorated = decorate(decorated)
    return decorated


def module_options(function: Function) -> Function:
    """`--module` and where it goes."""
    for decorate in reversed(
        (
            click.option("--module", is_flag=True, help="As a module: `module load NAME/VERSION` brings its commands."),
            click.option(
                "--modules-folder",
                metavar="DIR",
                type=click.Path(path_type=Path),
                help="Where modulefiles go, as `module use` names it (modules.folder).",
            ),
        )
    ):
        function = decorate(function)
    return function


def publish_environment(session: Session, entry: Entry, offered: Offered, job: Job | None) -> Published:
    """Tell hubs of an image.

    Raises:
        HpcbinderError: Something cannot be meant, or the store cannot be written.
    """
    from hpcbinder.register import publish

    record = _record(entry, offered, job)
    publish(session.catalog, entry, record)
    return record


def export_environment(entry: Entry, offered: Offered, job: Job | None) -> str:
    """An environment as Python for another spawner's part of jupyterhub_config.py.

    Raises:
        HpcbinderError: Something cannot be meant, or the image is not where that spawner could have it from.
    """
    from hpcbinder.jupyterhub import export_text
    from hpcbinder.register import checked

    if offered.groups:
        raise UsageError("an export is for all who may choose it", hint="leave out --group")
    record = checked(_record(entry, offered, job))
    return export_text(str(offered.export), entry, record)


def register_as_module(session: Session, entry: Entry, folder: Path | None, name: str | None) -> RegisteredModule:
    """Give an image a module.

    Raises:
        HpcbinderError: It cannot have one.
    """
    from hpcbinder.register import register_module

    with session.catalog.working():
        return register_module(session.catalog, entry, session.config, folder=folder, name=name)


def _record(entry: Entry, offered: Offered, job: Job | None) -> Published:
    from hpcbinder.register import Published, icon_url
    from hpcbinder.text import one_line

    values = {} if job is None else job.values
    if job is not None and (job.mpi != "auto" or values.get("tasks", 1) != 1):
        raise UsageError("a server is one process: no --ntasks and no --mpi")
    return Published(
        title=offered.title or entry.id.rpartition("-")[0] or entry.id,
        repository=one_line(entry.source + (f" ({entry.subdir})" if entry.subdir else ""), 1000),
        ref=one_line(f"{entry.ref} ({entry.commit[:7]})" if entry.commit else entry.ref, 300),
        description=offered.description or "",
        icon="" if offered.icon is None else icon_url(offered.icon),
        path=offered.path or "",
        resources={name: str(value) for name, value in values.items() if name != "tasks"},
        groups=offered.groups,
    )

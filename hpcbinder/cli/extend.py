"""`hpcbinder extend`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcbinder.cli.completion import complete_id
from hpcbinder.cli.options import kernel_options, runtime_option
from hpcbinder.cli.session import Session

if TYPE_CHECKING:
    from hpcbinder.model import RegisteredKernel


@click.command("extend")
@click.argument("id_", metavar="ID", shell_complete=complete_id)
@click.argument("packages", metavar="[PACKAGE]...", nargs=-1)
@click.option(
    "-r",
    "--requirement",
    "files",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Also the requirements in FILE; can be repeated.",
)
@click.option("--upgrade", is_flag=True, help="Let what is in the image become another version where that is needed.")
@click.option("--refresh", is_flag=True, help="Ask the package index anew for what was found before.")
@click.option("--keep-kernel", is_flag=True, help="Leave ID's kernels as they are; the new image gets its own.")
@click.option("--no-register", is_flag=True, help="Leave ID's kernels as they are, and register none.")
@kernel_options
@runtime_option
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object on stdout at the end.")
@click.pass_obj
def extend_command(
    session: Session,
    id_: str,
    packages: tuple[str, ...],
    files: tuple[Path, ...],
    upgrade: bool,
    refresh: bool,
    keep_kernel: bool,
    no_register: bool,
    prefix: str | None,
    name: str | None,
    runtime: str | None,
    as_json: bool,
) -> None:
    """Make a new image of image ID with PACKAGEs of the package index added: what `pip install` is elsewhere.

    \b
      hpcbinder extend ligo-binder seaborn 'xarray>=2024'

    An image never changes, so that pip cannot install into it. What is in it stays in the version that it has: others
    are found that fit it (--upgrade lets it change). The new image has an id of its own, and ID is still there.

    Your registered kernels of ID then run the new image, under the names that they have: restart them, and the packages
    are there. --keep-kernel, --prefix and --name register a kernel of its own beside them. `hpcbinder register` with
    ID and the kernel's name turns back.
    """
    from hpcbinder.cli.output import build_result, built
    from hpcbinder.extending import Addition, extend, requirements_of
    from hpcbinder.repointing import repoint

    lines = (*packages, *(line for file in files for line in requirements_of(file)))
    if not lines:
        raise click.UsageError("no package to add: name some, or give -r FILE")
    if no_register and (prefix or name or keep_kernel):
        raise click.UsageError("--no-register and options of a kernel exclude each other")
    session.setting({"runtime.name": runtime})
    parent = session.catalog.get(id_)
    with session.reporter as reporter:
        entry = extend(parent, Addition(lines, upgrade, refresh), session.config, session.catalog, reporter)
        kernels: tuple[RegisteredKernel, ...] = ()
        if entry.id != parent.id and not no_register:
            place = Path(prefix).absolute() if prefix else None
            beside = keep_kernel or place is not None or name is not None
            kernels = repoint(
                parent, entry, session.config, session.catalog, reporter, beside=beside, prefix=place, name=name
            )
    if as_json:
        # The kernels that were registered now, not those of earlier calls.
        told = build_result(replace(entry, registered=kernels))
        click.echo(json.dumps({**told, "parent": entry.parent, "added": list(entry.added)}))
    elif entry.id == parent.id:
        click.echo(f"{entry.id} has all of it already")
    else:
        built(replace(entry, registered=kernels))
        click.echo(f"What it was before: hpcbinder run {parent.id}")

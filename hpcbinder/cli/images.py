"""`hpcbinder list`, `show` and `rm`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from hpcbinder.cli.completion import complete_id
from hpcbinder.cli.session import Session

if TYPE_CHECKING:
    from hpcbinder.model import Entry


@click.command("list")
@click.option("--own", is_flag=True, help="Only those of your own store, not the site's.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.pass_obj
def list_command(session: Session, own: bool, as_json: bool) -> None:
    """List the images of the catalog, newest first."""
    from hpcbinder.cli.output import build_result, image_table

    entries = session.catalog.list(damaged=session.warn)
    if own:
        entries = [entry for entry in entries if session.catalog.own(entry)]
    if as_json:
        click.echo(json.dumps([{**build_result(entry), "published": _published(session, entry)} for entry in entries]))
    else:
        image_table(entries, session.catalog.path)


def _published(session: Session, entry: Entry) -> object:
    """What hubs are told of an image of this store, None for nothing."""
    from hpcbinder.errors import CatalogError
    from hpcbinder.model import to_json
    from hpcbinder.register import published_of

    try:
        return to_json(published_of(session.catalog.path, entry.id, trusted=True))
    except CatalogError as error:
        session.warn(error)
        return None


@click.command("show")
@click.argument("id_", metavar="ID", shell_complete=complete_id)
@click.option("--packages", is_flag=True, help="Every package, not only those that the repository asks for.")
@click.option("--json", "as_json", is_flag=True, help="Print the catalog's record.")
@click.pass_obj
def show_command(session: Session, id_: str, packages: bool, as_json: bool) -> None:
    """Show everything known about image ID (the start of an id is enough)."""
    from hpcbinder.cli.output import show
    from hpcbinder.model import to_json

    entry = session.catalog.get(id_)
    if as_json:
        click.echo(json.dumps(to_json(entry), indent=2))
    else:
        show(entry, packages=packages, verified=session.catalog.verified(entry))


@click.command("rm")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_id)
@click.pass_obj
def rm_command(session: Session, ids: tuple[str, ...]) -> None:
    """Remove images: their kernels first, so that none points at nothing, and last what the engine still holds."""
    from hpcbinder.build import remove

    # All are looked up first, so that a wrong one removes nothing; two beginnings may mean the same image.
    entries = {entry.id: entry for entry in map(session.catalog.get, ids)}
    removed = []
    try:
        with session.reporter as reporter:
            for entry in entries.values():
                remove(entry, session.config, session.catalog, reporter)
                removed.append(entry.id)
    finally:
        for id_ in removed:
            click.echo(f"removed {id_}")

"""`hpcbinder config`."""

from __future__ import annotations

import json

import click

from hpcbinder.cli.session import Session


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.pass_obj
def config_command(session: Session, as_json: bool) -> None:
    """Show every setting, its value and where it comes from (site file, yours, environment, flag)."""
    from hpcbinder.config import describe
    from hpcbinder.model import to_json

    settings = describe(session.config)
    if as_json:
        click.echo(json.dumps(to_json(settings), indent=2))
        return
    from hpcbinder.cli.output import settings_table

    settings_table(settings)

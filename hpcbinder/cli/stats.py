"""`hpcbinder stats`."""

from __future__ import annotations

import json

import click

from hpcbinder.cli.session import Session


@click.command("stats")
@click.option("--top", metavar="N", type=click.IntRange(0, 10_000), default=10, help="Packages shown (default: 10).")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.pass_obj
def stats_command(session: Session, top: int, as_json: bool) -> None:
    """Say what the images of the store have in common, and what that saves.

    Each layer (a base's, the notebook server's, a package's) is kept once, whichever images it is in. The images' own
    files are copies of these bytes; where the file system has reflinks (XFS, btrfs) they share the blocks on disk.
    """
    from hpcbinder.cli.output import statistics_page
    from hpcbinder.model import to_json
    from hpcbinder.statistics import statistics

    found = statistics(session.catalog)
    if as_json:
        packages = [{**to_json(package), "saved": package.saved} for package in found.packages[:top]]
        click.echo(json.dumps({**to_json(found), "packages": packages, "saved": found.saved}))
    else:
        statistics_page(found, top)

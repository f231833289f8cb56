"""`hpcbinder warm`."""

from __future__ import annotations

import json
import sys

import click
from click.shell_completion import CompletionItem

from hpcbinder.cli.completion import one_of
from hpcbinder.cli.session import Session

_LIMIT = 64 << 20


def complete_file(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Files."""
    return [CompletionItem(incomplete, type="file")]


@click.command("warm")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, shell_complete=complete_file)
@click.option(
    "--base",
    "bases",
    metavar="SUITE",
    multiple=True,
    shell_complete=one_of("bookworm", "trixie"),
    help="For images on this Debian suite; can be repeated (default: build.suite and bases.suites).",
)
@click.option(
    "--python",
    "pythons",
    metavar="X.Y",
    multiple=True,
    shell_complete=one_of("3.11", "3.12", "3.13"),
    help="For images with this Python; can be repeated (default: each base's own).",
)
@click.option("--refresh", is_flag=True, help="Ask the package index anew for what was found before.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.pass_obj
def warm_command(
    session: Session,
    files: tuple[str, ...],
    bases: tuple[str, ...],
    pythons: tuple[str, ...],
    refresh: bool,
    as_json: bool,
) -> int:
    """Squash ahead what FILEs ask for, so that images with it are made in seconds: packages, the base, the server.

    \b
    FILE is one of
      requirements.txt, *.in     Python packages; the files that it names with -r and -c count too
      pylock.toml, uv.lock, …    a lock; pyproject.toml is taken from beside it
      environment.yml            conda packages
      manifest.json              the locks of an image, or what `hpcbinder show --json` printed
      -                          requirements on standard input

    It goes into the first of the sites' stores (store.site) that you may write to, else into yours; --store names
    another. What is there already is left as it is. Exits with 0 if all is there now; what cannot be had does not keep
    the rest from being squashed, and its exit code is 3 (not on the index, or not what it should be), 4 (no versions
    fit, or the file cannot be meant), 5 (the package is refused, or there is no base) or 10 (a registry). A FILE that
    is not there ends it with 2.
    """
    from hpcbinder.catalog import Catalog
    from hpcbinder.cli.output import warmed_page
    from hpcbinder.model import to_json
    from hpcbinder.warming import STDIN, Favourites, site_store, warm

    stdin = sys.stdin.buffer.read(_LIMIT + 1) if STDIN in files else b""
    if len(stdin) > _LIMIT:
        raise click.UsageError(f"more than {_LIMIT >> 20} MiB on standard input")
    config = site_store(session.config)
    catalog = Catalog(config.store.path, config.store.site)
    with session.reporter as reporter:
        warmed = warm(Favourites(files, bases, pythons, refresh), config, catalog, reporter, stdin=stdin)
    if as_json:
        totals = {"new": warmed.new, "there": warmed.there, "refused": warmed.refused}
        click.echo(json.dumps({**to_json(warmed), **totals}))
    else:
        warmed_page(warmed)
    return warmed.failed

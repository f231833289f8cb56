"""`hpcbinder logs`."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator

import click

from hpcbinder.cli.completion import complete_log
from hpcbinder.cli.session import Session


@click.command("logs")
@click.argument("id_", metavar="ID", shell_complete=complete_log)
@click.option("--follow", "-f", is_flag=True, help="Go on until the build has ended.")
@click.option("--last", "-n", metavar="N", type=click.IntRange(min=0), help="Only the last N lines of what there is.")
@click.option("--previous", is_flag=True, help="Of the build before the newest one.")
@click.pass_obj
def logs_command(session: Session, id_: str, follow: bool, last: int | None, previous: bool) -> None:
    """Show what was said while image ID was built, also of one that failed or is being built."""
    from hpcbinder.catalog import read_log

    run = session.catalog.log(id_, previous=previous)
    lines: Iterator[str] = read_log(run, follow=follow)
    if last is not None:
        lines = _last(lines, read_log(run), last) if follow else iter(deque(lines, maxlen=last))
    for line in lines:
        sys.stdout.write(f"{line}\n")
        if follow:
            sys.stdout.flush()


def _last(lines: Iterator[str], so_far: Iterator[str], last: int) -> Iterator[str]:
    """Of `lines` the last ones of what there is so far, and all that come."""
    skipped = max(0, sum(1 for _ in so_far) - last)
    for number, line in enumerate(lines):
        if number >= skipped:
            yield line

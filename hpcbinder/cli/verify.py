"""`hpcbinder verify`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcbinder.cli.completion import complete_id
from hpcbinder.cli.options import runtime_option
from hpcbinder.cli.session import Session
from hpcbinder.errors import UsageError

if TYPE_CHECKING:
    from hpcbinder.model import Entry
    from hpcbinder.verify import Verification, Wish

DOES_NOT_RUN = 12
"""Exit code that says that a notebook does not run."""

_SIZE = re.compile(r"(\d{1,12})([KMGT]?)(?:i?B)?", re.I)
_SECONDS = click.FloatRange(0.1, 30 * 24 * 3600)


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise click.BadParameter("write bytes, or 500M, 4G")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2].upper()]


@click.command("verify")
@click.argument("id_", metavar="ID", shell_complete=complete_id)
@click.argument("notebooks", metavar="[NOTEBOOK]...", nargs=-1)
@click.option("--imports", "only_imports", is_flag=True, help="Only try what notebooks and scripts import.")
@click.option("--network", is_flag=True, help="Let notebooks have the network.")
@click.option(
    "--checkout",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Take the repository's files from DIR, not from the image.",
)
@click.option(
    "--cell-timeout", metavar="SECONDS", type=_SECONDS, default=600.0, help="How long a cell may take (default: 600)."
)
@click.option(
    "--timeout", metavar="SECONDS", type=_SECONDS, default=3600.0, help="How long a notebook may take (default: 3600)."
)
@click.option(
    "--memory",
    metavar="SIZE",
    callback=_size,
    help="How much memory one may have, as in 4G (default: nine tenths of what is free).",
)
@runtime_option
@click.option("--junit", metavar="FILE", type=click.Path(path_type=Path), help="Write JUnit XML there, for CI.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write a page for people there.")
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object on stdout at the end.")
@click.pass_obj
def verify_command(
    session: Session,
    id_: str,
    notebooks: tuple[str, ...],
    only_imports: bool,
    network: bool,
    checkout: Path | None,
    cell_timeout: float,
    timeout: float,
    memory: int | None,
    runtime: str | None,
    junit: Path | None,
    html: Path | None,
    as_json: bool,
) -> int:
    """Say whether the notebooks of image ID's repository really run in it.

    First every import of its notebooks and scripts is tried, then each NOTEBOOK (a path in the repository, or a folder
    of it; all of them by default) is run from its top by the image's kernel: on a copy, without the network, for a
    limited time. An error that the notebook was saved with, or that a cell is tagged for (raises-exception), is none.

    Exits with 12 if a notebook does not run.
    """
    from hpcbinder.verify import Wish

    session.setting({"runtime.name": runtime})
    for file in (junit, html):
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise UsageError("no file can be written there", where=str(file), hint="the folder must be there already")
    wish = Wish(
        notebooks=notebooks,
        run=not only_imports,
        network=network,
        checkout=checkout,
        cell=cell_timeout,
        notebook=timeout,
        memory=memory,
    )
    found = verified(session, session.catalog.get(id_), wish, junit, html)
    if as_json:
        click.echo(json.dumps(as_object(found)))
    else:
        from hpcbinder.cli.verdicts import verdicts

        verdicts(found)
    return 0 if found.passed else DOES_NOT_RUN


def verified(
    session: Session, entry: Entry, wish: Wish, junit: Path | None = None, html: Path | None = None
) -> Verification:
    """Verify an image, and write the files that were asked for."""
    from hpcbinder.verify import html_page, junit_xml, verify

    with session.reporter as reporter:
        found = verify(entry, wish, session.config, session.catalog, reporter)
    for path, make in ((junit, junit_xml), (html, html_page)):
        if path is not None:
            _write(path.absolute(), make(found))
    return found


def as_object(found: Verification) -> dict[str, object]:
    """The object that `verify --json` prints (docs/verify.md)."""
    from hpcbinder.model import to_json

    told: dict[str, object] = to_json(found)
    return {**told, "passed": found.passed, "summary": found.summary}


def _write(path: Path, content: bytes) -> None:
    from hpcbinder.catalog import write_atomic

    try:
        write_atomic(path, content)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=str(path)) from error

"""`hpcbinder plan`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from hpcbinder.cli.options import lock_options, source_options
from hpcbinder.cli.session import Session
from hpcbinder.errors import FetchError


@click.command("plan")
@source_options
@lock_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "dockerfile"]),
    default="text",
    help="text; json; or the Dockerfile and the listing of its context.",
)
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
@click.pass_obj
def plan_command(
    session: Session,
    source: str,
    ref: str | None,
    subdir: str | None,
    without: tuple[str, ...],
    chosen: tuple[str, ...],
    refresh: bool,
    no_lock: bool,
    locks: Path | None,
    form: str,
    as_json: bool,
) -> None:
    """Show what would be done for SRC and why, file by file. Runs no code of the repository and needs no engine."""
    from hpcbinder.build import Request, plan_source
    from hpcbinder.model import to_json
    from hpcbinder.plan import context_listing, dockerfile, explain
    from hpcbinder.progress import Clock

    request = Request(
        source=source,
        ref=ref,
        subdir=subdir,
        without=without,
        chosen=chosen,
        refresh=refresh,
        lock=not no_lock,
        locks=locks,
    )
    # A plan is for looking, also for people who have no store yet: nothing is written but this.
    with temporary() as folder, session.reporter as reporter:
        checkout, plan = plan_source(request, session.config, folder, reporter, Clock())
        if as_json or form == "json":
            text = json.dumps({"id": plan.id, **to_json(plan)}, indent=2)
        elif form == "dockerfile":
            from hpcbinder.bases import base_tag
            from hpcbinder.engine import tools_tag

            base = base_tag(plan.base) if plan.own is None else ""
            recipe = dockerfile(plan, base_image=base, tools_image=tools_tag(), server_image=None)
            listing = "\n".join(f"#   {line}" for line in context_listing(plan, checkout))
            text = f"{recipe.rstrip()}\n\n# Context:\n{listing}"
        else:
            text = explain(plan)
    click.echo(text)


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder that goes away however deep a repository's folders in it are (`tempfile`'s own fails at a thousand)."""
    from hpcbinder.catalog import remove_tree

    try:
        folder = Path(tempfile.mkdtemp(prefix="hpcbinder-plan-"))
    except OSError as error:
        raise FetchError(f"no temporary folder can be made: {error.strerror}", hint="set TMPDIR") from error
    try:
        yield folder
    finally:
        remove_tree(folder)

"""`hpcbinder init`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hpcbinder.cli.options import lock_options, source_options
from hpcbinder.cli.session import Session


@click.command("init")
@source_options
@lock_options
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write there (default: where SRC has its config files if it is a folder, else into the current folder).",
)
@click.option("--force", is_flag=True, help="Replace files that are there already.")
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object on stdout.")
@click.pass_obj
def init_command(
    session: Session,
    source: str,
    ref: str | None,
    subdir: str | None,
    without: tuple[str, ...],
    chosen: tuple[str, ...],
    refresh: bool,
    no_lock: bool,
    locks: Path | None,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write config files to begin with for SRC: what its code imports, with versions, as files to read and to keep.

    These are requirements.txt (with what in the code says so), runtime.txt, and apt.txt where something is known to
    need a Debian package. Nothing is written of what a file of the repository says already, and nothing is replaced
    without --force. Runs no code of the repository and needs no engine.

    With --buildpack infer the code counts although there is a requirements.txt.
    """
    from hpcbinder.build import Request, plan_source
    from hpcbinder.cli.plan import temporary
    from hpcbinder.progress import Clock
    from hpcbinder.starting import config_folder, starting_files, write_starts
    from hpcbinder.text import printable

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
    with temporary() as scratch, session.reporter as reporter:
        checkout, plan = plan_source(request, session.config, scratch, reporter, Clock())
        folder = output if output is not None else Path.cwd()
        if output is None and Path(source).is_dir():
            folder = Path(source).absolute() / (subdir or "") / config_folder(checkout)
        found = write_starts(starting_files(plan), folder, force=force)
    missing = [{"file": d.file, "why": d.reason} for d in plan.decisions if d.pack == "infer" and not d.used]
    if as_json:
        files = [{"path": one.path, "written": one.written, "why": one.why} for one in found]
        click.echo(json.dumps({"id": plan.id, "files": files, "missing": missing}))
        return
    for one in found:
        click.echo(f"{'wrote' if one.written else 'left'}  {printable(one.path)}: {printable(one.why)}")
    for each in missing:
        click.echo(f"note  {printable(each['file'])}: {printable(each['why'])}")

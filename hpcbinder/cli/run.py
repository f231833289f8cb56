"""`hpcbinder run`."""

from __future__ import annotations

import click

from hpcbinder.cli.options import runtime_option
from hpcbinder.cli.session import Session


@click.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@runtime_option
@click.argument("id_", metavar="ID")
@click.argument("command", metavar="[-- CMD...]", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run_command(session: Session, id_: str, command: tuple[str, ...], runtime: str | None) -> int:
    """Run CMD inside image ID, or JupyterLab when there is none. Exits with the command's status."""
    from hpcbinder.runtime import run

    session.setting({"runtime.name": runtime})
    words = command[1:] if command[:1] == ("--",) else command
    with session.reporter as reporter:
        config, entry = session.config, session.catalog.get(id_)
        reporter.phase("run", f"{entry.id}: {' '.join(words) or 'JupyterLab'}")
    return run(entry, words or None, config=config)

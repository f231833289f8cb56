"""`hpcbinder run`."""

from __future__ import annotations

import sys
from pathlib import Path

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
    from hpcbinder.runtime import execute, run_argv

    session.setting({"runtime.name": runtime})
    words = command[1:] if command[:1] == ("--",) else command
    entry = session.catalog.get(id_)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    argv = run_argv(entry, words or None, session.config.runtime, cwd=Path.cwd(), interactive=terminal)
    return execute(argv, terminal=terminal)

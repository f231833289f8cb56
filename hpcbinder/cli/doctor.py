"""`hpcbinder doctor`."""

from __future__ import annotations

import json
import os

import click

from hpcbinder.cli.session import Session
from hpcbinder.errors import BuildError, RunError


@click.command("doctor")
@click.option("--network", is_flag=True, help="Also ask the package index, the Debian mirror, the registries.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.pass_obj
def doctor_command(session: Session, network: bool, as_json: bool) -> int:
    """Say what this machine has to build and to run with, what is missing, and what to do. Changes nothing.

    Exits with 0 if images can be built and run here, with 5 if none can be built, with 9 if they can be built but not
    run.
    """
    from hpcbinder.cli.output import diagnosis
    from hpcbinder.doctor import examine
    from hpcbinder.model import to_json

    found = examine(session.config, os.environ, ask_servers=network)
    if as_json:
        click.echo(json.dumps(to_json(found), indent=2))
    else:
        diagnosis(found)
    return BuildError.exit_code if found.cannot_build else RunError.exit_code if found.cannot_run else 0

"""`hpcbinder push`, `login` and `logout`."""

from __future__ import annotations

import json
import sys

import click

from hpcbinder.cli.completion import complete_id
from hpcbinder.cli.session import Session


@click.command("push")
@click.argument("id_", metavar="ID", shell_complete=complete_id)
@click.argument("reference", metavar="REGISTRY/NAME[:TAG]")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.pass_obj
def push_command(session: Session, id_: str, reference: str, as_json: bool) -> None:
    """Push image ID to a registry, from which engines and clusters pull it.

    Without TAG it gets the hex digits at the end of its id. The layers are those the engine has, or those it was
    assembled of; where they are no more, the catalog's squashfs is pushed as one layer. Logins are those of `hpcbinder
    login`, podman and docker.

    debian:SUITE for ID pushes the base that images stand on, for those who cannot make one.
    """
    from hpcbinder.publish import publish, publish_base
    from hpcbinder.registry import parse_reference

    place = parse_reference(reference)
    kind, _, suite = id_.partition(":")
    entry = session.catalog.get(id_) if kind != "debian" or not suite else None
    with session.reporter as reporter:
        if entry is None:
            pushed = publish_base(suite, place, session.config, session.catalog, reporter)
        else:
            pushed = publish(entry, place, session.config, session.catalog, reporter)
    if as_json:
        values = {"id": entry.id if entry is not None else id_, "reference": pushed.reference, "digest": pushed.digest}
        click.echo(json.dumps(values))
    else:
        click.echo(f"{pushed.reference}@{pushed.digest}")


@click.command("login")
@click.argument("registry", metavar="REGISTRY")
@click.option("--username", "-u", metavar="NAME", help="Who you are there; asked for if not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password, or token, from stdin; else it is asked for.")
@click.pass_obj
def login_command(session: Session, registry: str, username: str | None, password_stdin: bool) -> None:
    """Log in to a registry, as ghcr.io or localhost:5000, and keep the login if it is let in.

    It is kept in ~/.config/hpcbinder/auth.json, which only you can read. Logins of docker and podman are found without
    this.
    """
    from hpcbinder.registry import Login, Registry, keep_login, parse_host

    host = parse_host(registry)
    if password_stdin:
        if username is None:
            raise click.UsageError("--password-stdin wants --username too")
        password = sys.stdin.read(65536).rstrip("\r\n")
    elif sys.stdin.isatty():
        username = username or click.prompt("Username", err=True)
        password = click.prompt("Password", hide_input=True, err=True)
    else:
        raise click.UsageError("no terminal to ask at: give --username and --password-stdin")
    if not password:
        raise click.UsageError("the password is empty")
    login = Login(username or "", password)
    Registry(session.config.site, session.config.registry).check(host, login)
    click.echo(f"logged in to {host}; kept in {keep_login(host, login)}")


@click.command("logout")
@click.argument("registry", metavar="REGISTRY")
def logout_command(registry: str) -> None:
    """Forget the login of `hpcbinder login`; those of docker and podman stay."""
    from hpcbinder.registry import Credentials, forget_login, parse_host

    host = parse_host(registry)
    if forget_login(host):
        click.echo(f"logged out of {host}")
    else:
        click.echo(f"no login for {host} is kept")
    if other := Credentials().find(host, ""):
        click.echo(f"there still is one in {other.origin}")

"""`hpcbinder register` and `unregister`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from hpcbinder.cli.completion import complete_id
from hpcbinder.cli.jobs import Job, job_options
from hpcbinder.cli.options import kernel_options, runtime_option
from hpcbinder.cli.session import Session


@click.command("register")
@click.argument("id_", metavar="ID", shell_complete=complete_id)
@click.option("--kernel", is_flag=True, help="As Jupyter kernels, one for each kernel the image holds.")
@kernel_options
@runtime_option
@job_options
@click.pass_obj
def register_command(
    session: Session,
    id_: str,
    kernel: bool,
    prefix: str | None,
    name: str | None,
    runtime: str | None,
    job: Job | None,
) -> None:
    """Register image ID so that it can be launched. Doing it twice changes nothing.

    With --on slurm each kernel is a job of its own, on whichever node there is. Jupyter starts it there where hpcbinder
    is installed beside Jupyter.
    """
    from hpcbinder.build import register

    if not kernel:
        raise click.UsageError("say as what to register it: --kernel")

    session.setting({"runtime.name": runtime})
    folder = Path(prefix).absolute() if prefix else None
    resources = None if job is None else job.resources(session.config.slurm)
    if job is not None and (job.mpi != "auto" or job.values.get("tasks", 1) != 1):
        raise click.UsageError("a kernel is one process: no --ntasks and no --mpi")
    with session.reporter as reporter:
        kernels = register(session.catalog.get(id_), session.config, session.catalog, reporter, folder, name, resources)
    for registered in kernels:
        click.echo(f"{registered.name}  {registered.path}")


@click.command("unregister")
@click.argument("id_", metavar="ID", shell_complete=complete_id)
@click.pass_obj
def unregister_command(session: Session, id_: str) -> None:
    """Remove image ID's kernels from Jupyter; the image stays."""
    from hpcbinder.register import unregister_kernels

    entry = session.catalog.get(id_)
    removed = unregister_kernels(entry, config=session.config)
    for registered in removed:
        click.echo(f"removed {registered.name}  {registered.path}")
    if not removed:
        click.echo(f"no kernel of {entry.id} is registered")
    session.catalog.update(replace(entry, registered=()))

"""`hpcbinder register` and `unregister`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcbinder.cli.completion import complete_id
from hpcbinder.cli.jobs import Job, job_options
from hpcbinder.cli.offers import (
    Offered,
    export_environment,
    hub_options,
    module_options,
    publish_environment,
    register_as_module,
)
from hpcbinder.cli.options import kernel_options, runtime_option
from hpcbinder.cli.session import Session

if TYPE_CHECKING:
    from hpcbinder.model import Entry, RegisteredKernel


@click.command("register")
@click.argument("id_", metavar="ID", shell_complete=complete_id)
@click.option("--kernel", is_flag=True, help="As Jupyter kernels, one for each kernel the image holds.")
@hub_options
@module_options
@kernel_options
@runtime_option
@job_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def register_command(
    session: Session,
    id_: str,
    kernel: bool,
    jupyterhub: bool,
    offered: Offered,
    module: bool,
    modules_folder: Path | None,
    prefix: str | None,
    name: str | None,
    runtime: str | None,
    job: Job | None,
    as_json: bool,
) -> None:
    """Register image ID so that it can be launched: as kernels, as an environment of JupyterHub, as a module. Doing it
    twice changes nothing.

    With --on slurm each kernel is a job of its own, on whichever node there is. Jupyter starts it there where hpcbinder
    is installed beside Jupyter. An environment's servers are jobs anyway: with --on slurm they ask for that unless a
    person says otherwise.
    """
    if not (kernel or jupyterhub or module):
        raise click.UsageError("say as what to register it: --kernel, --jupyterhub or --module")
    if not jupyterhub:
        offered.refuse()
    if not module and modules_folder is not None:
        raise click.UsageError("--modules-folder is about a module: add --module")
    if name is not None and kernel + module != 1:
        raise click.UsageError("--name is a kernel's or a module's: register one at a time")
    if module and not kernel and not jupyterhub and job is not None:
        raise click.UsageError("a module's commands run where they are called: no --on")
    if offered.export and (kernel or module or as_json):
        raise click.UsageError("--export registers nothing: it stands with --jupyterhub alone")
    session.setting({"runtime.name": runtime})
    prefix_folder = Path(prefix).absolute() if prefix else None
    entry = session.catalog.get(id_)
    if offered.export:
        click.echo(export_environment(entry, offered, job))
        return
    done: dict[str, object] = {"id": entry.id}
    lines = []
    if kernel:
        kernels = _kernels(session, entry, prefix_folder, name, job)
        done["kernels"] = [{"name": k.name, "path": k.path, "display_name": k.display_name} for k in kernels]
        lines += [f"{registered.name}  {registered.path}" for registered in kernels]
    if jupyterhub:
        from hpcbinder.model import to_json

        record = publish_environment(session, entry, offered, job)
        done["published"] = to_json(record)
        lines.append(f"{entry.id}  offered to hubs of {session.catalog.path} as {record.title}")
    if module:
        made = register_as_module(session, entry, modules_folder, name)
        done["module"] = {"name": made.name, "folder": made.folder, "files": made.files, "commands": made.commands}
        lines.append(f"{made.name}  module use {made.folder} && module load {made.name}")
    click.echo(json.dumps(done) if as_json else "\n".join(lines))


def _kernels(
    session: Session, entry: Entry, folder: Path | None, name: str | None, job: Job | None
) -> tuple[RegisteredKernel, ...]:
    from hpcbinder.build import register

    resources = None if job is None else job.resources(session.config.slurm)
    if job is not None and (job.mpi != "auto" or job.values.get("tasks", 1) != 1):
        raise click.UsageError("a kernel is one process: no --ntasks and no --mpi")
    with session.reporter as reporter:
        return register(entry, session.config, session.catalog, reporter, folder, name, resources)


@click.command("unregister")
@click.argument("id_", metavar="ID", shell_complete=complete_id)
@click.pass_obj
def unregister_command(session: Session, id_: str) -> None:
    """Take back what `register` did with image ID: its kernels, its place in JupyterHub, its modules.

    The image stays.
    """
    from hpcbinder.register import unpublish, unregister_kernels, unregister_modules

    entry = session.catalog.get(id_)
    removed = unregister_kernels(entry, config=session.config)
    lines = [f"removed {registered.name}  {registered.path}" for registered in removed]
    if (record := unpublish(session.catalog, entry.id)) is not None:
        lines.append(f"no longer offered to hubs  {record}")
    lines += [f"removed module  {path}" for path in unregister_modules(session.catalog, entry.id)]
    click.echo("\n".join(lines) or f"no kernel, hub or module of {entry.id} is registered")
    session.catalog.update(replace(entry, registered=()))

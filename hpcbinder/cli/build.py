"""`hpcbinder build`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hpcbinder.cli.jobs import Job, job_options
from hpcbinder.cli.options import kernel_options, lock_options, runtime_option, source_options
from hpcbinder.cli.session import Session
from hpcbinder.errors import UsageError


@click.command("build")
@source_options
@lock_options
@kernel_options
@runtime_option
@job_options
@click.option("--engine", metavar="NAME", help="What builds: auto, none, docker, podman or buildah.")
@click.option(
    "--format",
    "formats",
    metavar="NAME",
    multiple=True,
    help="sif, squashfs, shifter, … (docs/convert.md); can be repeated.",
)
@click.option("--no-register", is_flag=True, help="Stop before registering kernels.")
@click.option("--rebuild", is_flag=True, help="Build even if the catalog has this image.")
@click.option("--push", metavar="REGISTRY/NAME[:TAG]", help="Push the image there in the end (see `hpcbinder push`).")
@click.option(
    "--verify", is_flag=True, help="Run its notebooks in the end (see `hpcbinder verify`); 12 if one does not run."
)
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object on stdout at the end.")
@click.pass_obj
def build_command(
    session: Session,
    source: str,
    ref: str | None,
    subdir: str | None,
    without: tuple[str, ...],
    chosen: tuple[str, ...],
    refresh: bool,
    no_lock: bool,
    locks: Path | None,
    prefix: str | None,
    name: str | None,
    runtime: str | None,
    engine: str | None,
    formats: tuple[str, ...],
    no_register: bool,
    rebuild: bool,
    push: str | None,
    verify: bool,
    as_json: bool,
    job: Job | None,
) -> int:
    """Fetch, detect, plan, build, convert and register SRC: from a link to a kernel.

    SRC is a git URL (https, ssh, file), gh:org/repo, gl:group/repo, a DOI or another name of a dataset
    (Zenodo, Figshare, Dataverse, …), or a local folder, whose files are taken as they are now.

    With --on slurm all that needs the network is done here, and the image is made on a node that needs none, in a job
    that ends with this command.
    """
    from hpcbinder.build import Request, build
    from hpcbinder.registry import parse_reference

    session.setting({"build.engine": engine, "build.formats": formats, "runtime.name": runtime})
    maker = None
    if job is not None:
        import os

        from hpcbinder.elsewhere import InJob

        if job.mpi != "auto" or job.values.get("tasks", 1) != 1 or job.values.get("nodes", 1) != 1:
            raise UsageError("a build is one process on one node", hint="leave out --ntasks, --nodes and --mpi")
        maker = InJob(job.resources(session.config.slurm), session.flags, os.environ)
    request = Request(
        source=source,
        ref=ref,
        subdir=subdir,
        without=without,
        chosen=chosen,
        rebuild=rebuild,
        register=not no_register,
        kernel_prefix=Path(prefix).absolute() if prefix else None,
        kernel_name=name,
        refresh=refresh,
        lock=not no_lock,
        locks=locks,
        push=parse_reference(push) if push else None,
        maker=maker,
    )
    with session.reporter as reporter:
        entry = build(request, session.config, session.catalog, reporter)
    found = None
    if verify:
        from hpcbinder.cli.verify import DOES_NOT_RUN, as_object, verified
        from hpcbinder.verify import Wish

        found = verified(session, entry, Wish())
    if as_json:
        from hpcbinder.cli.output import build_result

        pushed = [{"reference": reference, "digest": digest} for reference, digest in entry.pushed.items()]
        told = {**build_result(entry), "pushed": pushed[0] if pushed else None}
        click.echo(json.dumps({**told, "verified": as_object(found)} if found else told))
    else:
        from hpcbinder.cli.output import built

        built(entry)
        if found is not None:
            from hpcbinder.cli.verdicts import verdicts

            click.echo()
            verdicts(found)
    return DOES_NOT_RUN if found is not None and not found.passed else 0

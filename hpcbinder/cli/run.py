"""`hpcbinder run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpcbinder.cli.completion import complete_id_or_source, one_of
from hpcbinder.cli.jobs import Job, job_options
from hpcbinder.cli.notebooks import Notebooks, OptionsBehind, notebook_options, run_notebooks
from hpcbinder.cli.options import lock_options, runtime_option, selection_options
from hpcbinder.cli.session import Session
from hpcbinder.errors import UsageError
from hpcbinder.text import one_line

if TYPE_CHECKING:
    from hpcbinder.build import Request
    from hpcbinder.catalog import Catalog
    from hpcbinder.model import Entry
    from hpcbinder.runtime import Prepared
    from hpcbinder.scheduler import Resources


@click.command(
    "run",
    cls=OptionsBehind,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@notebook_options
@runtime_option
@job_options
@selection_options
@lock_options
@click.option(
    "--engine",
    metavar="NAME",
    shell_complete=one_of("auto", "docker", "podman", "buildah"),
    help="What builds, if a source is to be built: auto, docker, podman, buildah.",
)
@click.option("--rebuild", is_flag=True, help="Build the source even if the catalog has its image.")
@click.option(
    "--mpi-check",
    is_flag=True,
    help="Instead of CMD: do the processes of an MPI job find each other? mpiexec -n 4 hpcbinder run --mpi-check ID",
)
@click.option(
    "--space",
    is_flag=True,
    help="Run it in your own copy of the repository, which is made once and kept (space.folder).",
)
@click.option("--fresh", is_flag=True, help="With --space: make a fresh copy beside the one that is there.")
@click.option("--open", "opens", metavar="PATH", help="With --space: the file of it that JupyterLab shows first.")
@click.argument("what", metavar="ID|SRC", shell_complete=complete_id_or_source)
@click.argument("command", metavar="[-- CMD...]", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run_command(
    session: Session,
    what: str,
    command: tuple[str, ...],
    runtime: str | None,
    ref: str | None,
    subdir: str | None,
    without: tuple[str, ...],
    chosen: tuple[str, ...],
    refresh: bool,
    no_lock: bool,
    locks: Path | None,
    engine: str | None,
    rebuild: bool,
    mpi_check: bool,
    space: bool,
    fresh: bool,
    opens: str | None,
    job: Job | None,
    notebooks: Notebooks | None,
) -> int:
    """Run CMD inside an image, or JupyterLab when there is none. Exits with the command's status.

    With --on slurm CMD is the tasks of a job, on nodes that see the store; an image with MPI gets ranks that know each
    other. Ending this command ends the job.

    With --space it runs in your own copy of the repository: made from the image the first time, yours to change, kept,
    never overwritten, with the repository as its git origin.

    With --notebook a notebook is executed instead, headless, with parameters: once, or for each row of --array, as jobs
    of one array. Exits with 12 if one does not run.

    The image is one of the catalog, named by its ID (the start is enough), or made of SRC as `build` makes it: at once
    if the catalog has it. No kernel is registered. With an option that says how to make it (--ref, --rebuild, …) it
    is a SRC, and so it is if it has a / or a : in it; else an ID, or a folder of that name if no ID begins so.
    """
    from hpcbinder.runtime import execute, mpi_check_argv, run_argv

    session.setting({"runtime.name": runtime, "build.engine": engine})
    if command and command[0].startswith("-") and command[0] != "--":
        raise UsageError(
            f"{one_line(command[0], 100)} stands behind {one_line(what, 100)}, where the command begins",
            hint="options of `hpcbinder run` go before it",
        )
    words = command[1:] if command[:1] == ("--",) else command
    if mpi_check:
        if words:
            raise UsageError("--mpi-check runs a command of its own", hint="leave out what stands behind the ID")
        words = mpi_check_argv()
    if (fresh or opens) and not space:
        raise UsageError(f"{'--fresh' if fresh else '--open'} is about your copy of the repository", hint="add --space")
    if space and (mpi_check or notebooks is not None):
        raise UsageError("--space is for JupyterLab, or a command of yours")
    if opens and words:
        raise UsageError("--open says what JupyterLab shows", hint="leave out what stands behind the ID")
    if notebooks is not None and (words or (job is not None and job.mpi != "auto")):
        raise UsageError("--notebook runs no command of yours", hint="leave out what stands behind the ID, and --mpi")
    if job is not None and not words and notebooks is None:
        raise UsageError("a job needs a command to run", hint="hpcbinder run --on slurm ID -- CMD")
    resources = None if job is None else job.resources(session.config.slurm)
    left_out = session.flags.keys() & {"source.submodules", "source.lfs"}
    source = bool(ref or subdir or without or chosen or rebuild or refresh or no_lock or locks or left_out)
    entry = None if source else _image(what, session.catalog)
    if entry is None:
        from hpcbinder.build import Request

        request = Request(
            source=what,
            ref=ref,
            subdir=subdir,
            without=without,
            chosen=chosen,
            rebuild=rebuild,
            register=False,
            refresh=refresh,
            lock=not no_lock,
            locks=locks,
        )
        entry = _built(session, request)
    if notebooks is not None:
        return run_notebooks(session, entry, notebooks, resources)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    copy = None
    if space:
        copy = _own_copy(session, entry, fresh=fresh, elsewhere=job is not None)
    if job is not None and resources is not None:
        if copy is not None:
            # srun takes its folder along. The tasks find the copy's by its number (`pinned`): by its path a colleague's
            # may be there, and the loader looks in it for libraries if LD_LIBRARY_PATH has an empty element (ld.so(8)).
            os.chdir("/")  # noqa: TID251 (this process does nothing else)
        return _on_slurm(session, entry, words, resources, job.mpi, terminal, copy)
    slurm = session.config.slurm
    argv = run_argv(
        entry,
        words or None,
        session.config.runtime,
        cwd=Path.cwd(),
        interactive=terminal,
        slurm=slurm,
        copy=copy,
        opens=opens or "",
    )
    with session.catalog.running(entry):
        return execute(argv, terminal=terminal)


def _own_copy(session: Session, entry: Entry, *, fresh: bool, elsewhere: bool) -> Prepared:
    from hpcbinder.runtime import own_copy

    with session.catalog.running(entry):
        settings = session.config
        copy = own_copy(entry, settings.runtime, settings.space, environ=os.environ, fresh=fresh, elsewhere=elsewhere)
    for notice in copy.notices:
        print(f"hpcbinder: {one_line(notice)}", file=sys.stderr)
    return copy


def _on_slurm(
    session: Session,
    entry: Entry,
    words: tuple[str, ...],
    resources: Resources,
    mpi: str,
    terminal: bool,
    copy: Prepared | None,
) -> int:
    from hpcbinder.runtime import Command, execute
    from hpcbinder.scheduler import task

    with session.catalog.job() as folder, session.catalog.running(entry):
        settings = session.config.runtime
        started = task(entry, words, resources, settings, folder=folder, environ=os.environ, mpi=mpi, copy=copy)
        return execute(Command(started.argv, started.env, cleanup=started.cancel), terminal=terminal)


def _image(word: str, catalog: Catalog) -> Entry | None:
    """The image a word names, None if it names a source.

    Raises:
        CatalogError: It is neither.
        UsageError: It can be both.
    """
    if "/" in word or ":" in word or word in (".", "..", "~"):
        return None
    ids = [id_ for id_ in catalog.ids() if word and id_.startswith(word)]
    if word not in ids and Path(word).is_dir():
        if ids:
            raise UsageError(
                f"{one_line(word, 80)} is a folder, and the beginning of the image {ids[0]}",
                hint=f"say ./{one_line(word, 80)} or {ids[0]}",
            )
        return None
    return catalog.get(word)


def _built(session: Session, request: Request) -> Entry:
    from hpcbinder.build import build

    with session.reporter as reporter:
        return build(request, session.config, session.catalog, reporter)

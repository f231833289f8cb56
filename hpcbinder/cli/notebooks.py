"""`hpcbinder run --notebook`, and `hpcbinder collect`."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpcbinder.cli.session import Session
from hpcbinder.errors import HpcbinderError, RunError, UsageError
from hpcbinder.text import one_line, printable

if TYPE_CHECKING:
    from hpcbinder.batch import Outcome, Run
    from hpcbinder.model import Entry
    from hpcbinder.scheduler import Resources

Function = Callable[..., Any]

FAILED = 12
"""Exit code that says that a notebook does not run."""

_SECONDS = click.FloatRange(0.1, 30 * 24 * 3600)
_OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "notebooks": (
        ("--notebook",),
        {
            "metavar": "PATH",
            "multiple": True,
            "help": "Instead of CMD: execute this notebook of the image's repository, or, if PATH begins with ./, ../, "
            "/ or ~/, of this machine; can be repeated.",
        },
    ),
    "parameters": (
        ("-p", "--parameter"),
        {"metavar": "NAME=VALUE", "multiple": True, "help": "A notebook's parameter: True, None, a number, else text."},
    ),
    "raw": (("-r", "--parameter-raw"), {"metavar": "NAME=TEXT", "multiple": True, "help": "A parameter that is text."}),
    "files": (
        ("-f", "--parameters-file"),
        {
            "metavar": "FILE",
            "multiple": True,
            "type": click.Path(path_type=Path),
            "help": "Parameters from a YAML or JSON file.",
        },
    ),
    "arrays": (
        ("--array",),
        {
            "metavar": "TABLE|NAME=V,V",
            "multiple": True,
            "help": "Execute it for each row of a table (CSV, YAML, JSON), or each value; can be repeated, for all "
            "combinations.",
        },
    ),
    "at_once": (
        ("--at-once",),
        {
            "metavar": "N",
            "type": click.IntRange(1, 100_000),
            "help": "How many are executed at the same time (default: one; as jobs, as many as there is room for).",
        },
    ),
    "output": (
        ("--output",),
        {
            "metavar": "FOLDER",
            "type": click.Path(path_type=Path),
            "help": "New folder for executed notebooks (default: run-DATE-TIME here).",
        },
    ),
    "report": (("--report",), {"is_flag": True, "default": None, "help": "Make HTML of them, and an index.html."}),
    "cell_timeout": (
        ("--cell-timeout",),
        {"metavar": "SECONDS", "type": _SECONDS, "help": "How long a cell may take (default: as long as it likes)."},
    ),
    "detach": (
        ("--detach",),
        {"is_flag": True, "default": None, "help": "Put the jobs into the queue and go; hpcbinder collect waits."},
    ),
    "as_json": (
        ("--json",),
        {"is_flag": True, "default": None, "help": "Of notebooks, print exactly one JSON object on stdout at the end."},
    ),
}


@dataclass(frozen=True)
class Notebooks:
    """What was said of notebooks; see `_OPTIONS`."""

    notebooks: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    raw: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    arrays: tuple[str, ...] = ()
    at_once: int = 0
    output: Path | None = None
    report: bool = False
    cell_timeout: float = 0.0
    detach: bool = False
    as_json: bool = False


def notebook_options(function: Function) -> Function:
    """`--notebook` and what goes with it, as the argument `notebooks`: None without it."""

    @functools.wraps(function)
    def collected(*args: Any, **kwargs: Any) -> Any:
        given = {name: kwargs.pop(f"nb_{name}") for name in _OPTIONS}
        said = {name: value for name, value in given.items() if value not in (None, ())}
        if "notebooks" not in said and said:
            flag = _OPTIONS[next(iter(said))][0][-1]
            raise UsageError(f"{flag} is about notebooks", hint="add --notebook PATH")
        return function(*args, notebooks=Notebooks(**said) if said else None, **kwargs)

    decorated: Function = collected
    for name, (flags, settings) in reversed(_OPTIONS.items()):
        decorated = click.option(*flags, f"nb_{name}", **settings)(decorated)
    return decorated


class OptionsBehind(click.Command):
    """A command with options in front of its first argument, and behind it as far as the next word is one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # the last word is still being typed
            return super().parse_args(ctx, args)
        front, rest = self._split(ctx, args)
        middle, behind = self._split(ctx, rest[1:])
        if middle:
            if behind[:1] != ["--"]:
                behind = ["--", *behind] if behind else []
            args = [*front, *middle, rest[0], *behind]
        return super().parse_args(ctx, args)

    def _split(self, ctx: click.Context, args: Sequence[str]) -> tuple[list[str], list[str]]:
        """The options that words begin with, with their values, and the rest."""
        known = {
            flag: param
            for param in self.get_params(ctx)
            if isinstance(param, click.Option)
            for flag in (*param.opts, *param.secondary_opts)
        }
        end = 0
        while end < len(args) and args[end][:1] == "-" and args[end] not in ("-", "--"):
            word = args[end]
            name = word.partition("=")[0] if word[:2] == "--" else word[:2]
            if name not in known:
                break
            # `--name=VALUE`, `-pVALUE`, or a flag: the next word is not its value.
            whole = word != name or known[name].is_flag or known[name].count
            end += 1 if whole else 2
            if end > len(args):
                raise click.BadOptionUsage(name, f"Option '{name}' requires an argument.", ctx)
        return list(args[:end]), list(args[end:])


def run_notebooks(session: Session, entry: Entry, asked: Notebooks, resources: Resources | None) -> int:
    """Execute notebooks of or with an image, here or as jobs.

    Raises:
        HpcbinderError: They cannot be.
    """
    from hpcbinder import batch
    from hpcbinder.scheduler import Arrays

    if resources is None and asked.detach:
        raise UsageError("--detach is about jobs", hint="add --on slurm")
    output = asked.output or Path(time.strftime("run-%Y%m%d-%H%M%S"))
    wish = batch.Wish(
        notebooks=asked.notebooks,
        output=output.expanduser().absolute(),
        parameters=batch.parameters(asked.parameters, asked.raw, asked.files),
        rows=batch.rows(asked.arrays),
        report=asked.report,
        cell_timeout=asked.cell_timeout,
    )
    with session.catalog.running(entry):
        try:
            start = batch.stage(entry, wish, session.config.runtime, environ=os.environ)
        except OSError as error:
            raise RunError(f"results cannot be kept: {error.strerror}", where=one_line(str(wish.output))) from None
        run = batch.read_run(wish.output)
        tasks: batch.Here | batch.InJobs
        job = ""
        if resources is None:
            tasks = batch.Here(run, start, at_once=asked.at_once or 1, environ=os.environ)
        else:
            try:
                job = batch.submit(run, start, resources, at_once=asked.at_once, cwd=Path.cwd(), environ=os.environ)
            except HpcbinderError:
                batch.discard(run.folder)
                raise
            if asked.detach:
                _show(run, batch.outcomes(run), as_json=asked.as_json, job=job, waits=True)
                return 0
            count = f"{len(run.tasks)} notebook{'s' * (len(run.tasks) != 1)}"
            try:
                with session.reporter as reporter:
                    reporter.phase("run", f"job {job}: {count}, into {one_line(str(output), 200)}")
                tasks = batch.InJobs(job, os.environ)
            except KeyboardInterrupt:
                Arrays(os.environ).cancel(job)
                raise
        return _followed(session, run, tasks, as_json=asked.as_json, job=job)


@click.command("collect")
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object on stdout at the end.")
@click.pass_obj
def collect_command(session: Session, folder: Path, as_json: bool) -> int:
    """Wait for the notebooks that `run --notebook` executes into FOLDER as jobs, and say what became of them.

    For jobs that were left to themselves: by --detach, or because the terminal went away. Ctrl-C ends the jobs.
    Exits with 12 if a notebook does not run.
    """
    from hpcbinder import batch

    run = batch.read_run(folder.expanduser().absolute())
    job = batch.job_of(run)
    if job is not None:
        return _followed(session, run, batch.InJobs(job, os.environ), as_json=as_json, job=job)
    # Whoever executed them is gone, and they with it; or is at it still, and says so itself.
    known = batch.outcomes(run)
    _show(run, known, as_json=as_json)
    return 0 if all(task.state is batch.State.DONE for task in known) else FAILED


def _followed(session: Session, run: Run, tasks: Any, *, as_json: bool, job: str = "") -> int:
    from hpcbinder import batch
    from hpcbinder.catalog import write_atomic

    try:
        with session.reporter as reporter:
            known, early = batch.follow(run, tasks, reporter)
    except batch.Left:
        # Nobody reads it; what tasks write is read later (`collect`).
        os._exit(129)
    if run.report:
        try:
            write_atomic(run.folder / "index.html", batch.index_page(run, known))
        except OSError as error:
            session.warn(f"no index.html: {error.strerror}")
    batch.tidy(run.folder, run.repository, [task.name for task in known])
    _show(run, known, as_json=as_json, job=job)
    if early:
        raise KeyboardInterrupt
    return 0 if all(task.state is batch.State.DONE for task in known) else FAILED


def _show(run: Run, tasks: Sequence[Outcome], *, as_json: bool, job: str = "", waits: bool = False) -> None:
    from hpcbinder.batch import shown, summary

    if as_json:
        click.echo(json.dumps(_object(run, tasks, job)))
        return
    for task in tasks if not waits else ():
        values = ", ".join(f"{name}={shown(value)}" for name, value in task.parameters.items())
        took = f"{task.seconds:.1f} s" if task.seconds else ""
        told = ", ".join(filter(None, (task.state.value, took)))
        line = f"{task.name}: {told}{f' ({values})' if values else ''}"
        sys.stdout.write(f"{printable(line)}\n")
        for text in filter(None, (task.said, *task.notes)):
            sys.stdout.write(f"    {printable(text)}\n")
    page = run.folder / "index.html"
    where = page if page.is_file() else run.folder
    last = f"job {job}; hpcbinder collect {run.folder}" if waits else f"{summary(tasks)}: {where}"
    sys.stdout.write(f"{printable(last)}\n")


def _object(run: Run, tasks: Sequence[Outcome], job: str) -> dict[str, Any]:
    """The object that `--json` prints (docs/batch.md)."""
    from hpcbinder.batch import State, plain

    page = run.folder / "index.html"
    return {
        "image": run.image,
        "folder": str(run.folder),
        "job": job or None,
        "passed": all(task.state is State.DONE for task in tasks),
        "report": str(page) if page.is_file() else None,
        "tasks": [
            {
                "name": task.name,
                "notebook": task.notebook,
                "parameters": plain(dict(task.parameters)),
                "state": task.state.value,
                "seconds": task.seconds,
                "host": task.host or None,
                "error": {"message": task.error, "cell": task.cell or None} if task.error else None,
                "reason": task.reason or None,
                "notes": list(task.notes),
                "output": str(task.output) if task.output else None,
                "page": str(task.page) if task.page else None,
            }
            for task in tasks
        ],
    }

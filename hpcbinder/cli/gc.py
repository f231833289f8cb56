"""`hpcbinder gc`."""

from __future__ import annotations

import json
import re

import click

from hpcbinder.cli.completion import complete_id, one_of
from hpcbinder.cli.session import Session

_UNITS = {"m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


class Age(click.ParamType[float]):
    """`30d`, `12h`, `0`: seconds."""

    name = "age"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d{1,6})([mhdw])|0", str(value))
        if match is None:
            self.fail(f"{str(value)!r} is no age: 90m, 12h, 30d, 2w or 0", param, ctx)
        return float(match[1] or 0) * _UNITS[match[2] or "m"]


@click.command("gc")
@click.option("--images", is_flag=True, help="Also images that no kernel points at.")
@click.option(
    "--older-than",
    "age",
    metavar="AGE",
    type=Age(),
    help="Only what is at least so old, e.g. 12h, 30d, 2w. Default: 30d, and 0 for layers and leftovers.",
)
@click.option(
    "--unused-for",
    "unused",
    metavar="AGE",
    type=Age(),
    help="Squashed packages and layers that nothing used for so long, whichever image has them.",
)
@click.option("--keep", metavar="ID", multiple=True, shell_complete=complete_id, help="An image that stays.")
@click.option(
    "--engine",
    metavar="NAME",
    shell_complete=one_of("auto", "docker", "podman", "buildah"),
    help="Whose images are looked through as well (default: build.engine, if it is there).",
)
@click.option("--no-engine", is_flag=True, help="Leave the engine's images alone.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.pass_obj
def gc_command(
    session: Session,
    images: bool,
    age: float | None,
    unused: float | None,
    keep: tuple[str, ...],
    engine: str | None,
    no_engine: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove what nothing needs any more: squashed layers and bases of no image, squashed packages and layers made of
    them that were not used for long, old logs, what killed builds left, and old images of ours in the engine. Never
    what a kernel points at. Images of the catalog only with --images.

    An image is a file of its own, which needs none of the packages and layers it was made of: they are kept for the
    next one. --unused-for says for how long, counted from the last image that was made of them, in place of 30d (of
    layers: of as long as the catalog has an image with them).

    The engine's build cache is its own matter (docker builder prune, podman system prune).
    """
    from hpcbinder.cli.output import swept
    from hpcbinder.engine import Engine, pick_engine
    from hpcbinder.errors import BuildError
    from hpcbinder.gc import Wish, check_keep, collect
    from hpcbinder.model import to_json

    if engine and no_engine:
        raise click.UsageError("--engine and --no-engine exclude each other")
    session.setting({"build.engine": engine})
    wish = Wish(images, age, check_keep(keep, session.catalog), dry_run, unused)
    chosen: Engine | None = None
    if not no_engine:
        try:
            chosen = pick_engine(session.config.build.engine, session.config)
        except BuildError as error:
            if engine:
                raise
            session.warn(f"no engine is looked through: {error}")
    with session.reporter as reporter:
        report = collect(wish, session.catalog, session.config, chosen, reporter)
    if as_json:
        click.echo(json.dumps({**to_json(report), "size": report.size}))
    else:
        swept(report)
    for note in report.notes:
        session.warn(note)
    if report.busy:
        session.warn("a build is at work in this store: only what dead processes left was removed; run gc again later")

"""`hpcbinder convert`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from hpcbinder.cli.completion import complete_id
from hpcbinder.cli.session import Session

TRANSPORTS = ("docker-daemon:", "containers-storage:", "docker-archive:", "oci-archive:", "oci:", "docker://")
FORMATS = ("sif", "squashfs", "shifter", "podman-hpc", "enroot", "charliecloud", "oci")
# Written down here too, since what completes words may import nothing heavy; a test compares them.

_PATHS = ("docker-archive:", "oci-archive:", "oci:")


def complete_image(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Transports and ids of images, or files."""
    if incomplete.startswith(_PATHS):
        return [CompletionItem(word) for word in _files(incomplete)]
    words = [CompletionItem(word) for word in TRANSPORTS if word.startswith(incomplete)]
    return [*words, *complete_id(ctx, param, incomplete)] or [CompletionItem(incomplete, type="file")]


def complete_formats(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Formats behind the commas that are there."""
    before, comma, last = incomplete.rpartition(",")
    given = before.split(",")
    return [CompletionItem(f"{before}{comma}{word}") for word in FORMATS if word.startswith(last) and word not in given]


def _formats(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    words = [word.strip() for value in values for word in value.split(",")]
    for word in words:
        if word not in FORMATS:
            raise click.BadParameter(f"no format {word[:80]!r}; known: {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(words))


def _platform(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"linux/[a-z0-9]{1,20}", value):
        raise click.BadParameter("write linux/ARCHITECTURE, as in linux/arm64")
    return value


@click.command("convert")
@click.argument("source", metavar="SOURCE", shell_complete=complete_image)
@click.option(
    "--to",
    "formats",
    metavar="FORMAT[,FORMAT]",
    multiple=True,
    required=True,
    callback=_formats,
    shell_complete=complete_formats,
    help=f"{', '.join(FORMATS)}; can be repeated.",
)
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    type=click.Path(),
    help="File, if one is made, or folder (default: the working directory).",
)
@click.option("--name", metavar="NAME", help="Name of the files, without their endings (default: the image's).")
@click.option("--force", is_flag=True, help="Replace what is there already.")
@click.option("--compression", metavar="NAME[:LEVEL]", help="auto, gzip, zstd, xz or lz4, as in zstd:19.")
@click.option("--jobs", metavar="N", type=click.IntRange(1, 1024), help="Threads that compress (default: all cores).")
@click.option(
    "--platform",
    metavar="linux/ARCH",
    callback=_platform,
    help="Which of an image for several machines (default: this one's).",
)
@click.option(
    "--sbom",
    metavar="FILE|none",
    type=click.Path(),
    help="Bill of materials for the SIF, CycloneDX or SPDX in JSON, or none (default: made of what is in the image).",
)
@click.option(
    "--sign-key", metavar="KEY.pem", type=click.Path(path_type=Path), help="Sign the SIF with this private key."
)
@click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object on stdout at the end.")
@click.pass_obj
def convert_command(
    session: Session,
    source: str,
    formats: tuple[str, ...],
    output: str | None,
    name: str | None,
    force: bool,
    compression: str | None,
    jobs: int | None,
    platform: str | None,
    sbom: str | None,
    sign_key: Path | None,
    as_json: bool,
) -> None:
    """Convert SOURCE, an image, to files that the runtimes of a cluster take.

    \b
    SOURCE is one of
      docker-daemon:NAME[:TAG]          an image in Docker
      containers-storage:NAME[:TAG]     an image of podman or buildah
      docker-archive:FILE[:NAME[:TAG]]  what `docker save` or `podman save` wrote
      oci-archive:FILE[:TAG]            an OCI layout in a tar file
      oci:FOLDER[:TAG]                  an OCI layout
      docker://REGISTRY/NAME[:TAG]      an image of a registry; needs no engine
      FILE                              a SIF or squashfs, or
      ID                                an image of the catalog, for another format

    Layers are compressed once and kept in the store for the next image that has them.
    """
    from hpcbinder.convert import SBOM_LEFT_OUT, read_sbom
    from hpcbinder.converting import Wish, convert_source
    from hpcbinder.image import Platform
    from hpcbinder.runtime import read_private_key

    session.setting({"build.compression": compression})
    wish = Wish(
        source=source,
        formats=formats,
        output=output,
        name=name,
        force=force,
        jobs=jobs,
        platform=Platform(platform.partition("/")[2]) if platform else None,
        sbom=SBOM_LEFT_OUT if sbom == "none" else read_sbom(Path(sbom)) if sbom else None,
        sign_key=None if sign_key is None else read_private_key(sign_key),
    )
    with session.reporter as reporter:
        done = convert_source(wish, session.config, session.catalog, reporter)
    if as_json:
        from hpcbinder.cli.output import convert_result

        click.echo(json.dumps(convert_result(done)))
    else:
        from hpcbinder.cli.output import converted

        converted(done)


def _files(incomplete: str) -> list[str]:
    """The files and folders that a path behind a transport may become."""
    transport, _, begin = incomplete.partition(":")
    path = Path(begin)
    folder, start = (path, "") if begin.endswith("/") or not begin else (path.parent, path.name)
    try:
        names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    except OSError:
        return []
    shown = begin[: len(begin) - len(start)]
    return [f"{transport}:{shown}{name}" for name in names if name.startswith(start)]

"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hpcbinder.cli.completion import complete_source, one_of

Function = Callable[..., Any]


def source_options(function: Function) -> Function:
    """SRC and what selects a part of it."""
    return click.argument("source", metavar="SRC", shell_complete=complete_source)(selection_options(function))


def selection_options(function: Function) -> Function:
    """What selects a part of a source."""
    for decorate in reversed(
        (
            click.option("--ref", metavar="REF", help="Branch, tag or commit (default: the remote's HEAD)."),
            click.option("--subdir", metavar="DIR", help="Folder of the repository to build from."),
            click.option(
                "--without",
                metavar="PACK",
                multiple=True,
                help="Leave a buildpack out, and with it the files it reads.",
            ),
            click.option(
                "--buildpack",
                "chosen",
                metavar="PACK",
                multiple=True,
                help="Let only this buildpack's files count, beside apt.txt, runtime.txt, postBuild and start; can be "
                "repeated.",
            ),
            click.option(
                "--conda",
                type=click.Choice(["packages", "pypi"]),
                expose_value=False,
                callback=_conda,
                help="What becomes of files that ask for conda packages: these, or Debian's and PyPI's counterparts.",
            ),
            _leave("--no-submodules", "source.submodules", "Leave the folders of git submodules empty."),
            _leave("--no-lfs", "source.lfs", "Leave the pointers to files in Git LFS."),
        )
    ):
        function = decorate(function)
    return function


def _conda(context: click.Context, _: click.Parameter, value: str | None) -> None:
    context.obj.setting({"conda.mode": value})


def _leave(flag: str, key: str, text: str) -> Callable[[Function], Function]:
    """A flag that sets a key of the configuration to `leave`."""

    def chosen(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.obj.setting({key: "leave"})

    return click.option(flag, is_flag=True, expose_value=False, callback=chosen, help=text)


def lock_options(function: Function) -> Function:
    """When versions are found."""
    for decorate in reversed(
        (
            click.option(
                "--refresh", is_flag=True, help="Ask the package index and registries anew for what was found before."
            ),
            click.option(
                "--no-lock", is_flag=True, help="Let the build find versions, instead of fixing them before it."
            ),
            click.option(
                "--as-of",
                metavar="WHEN",
                expose_value=False,
                callback=_as_of,
                help="Time of the versions that nothing locks: commit (the newest change of notebooks, code or "
                "configuration), a day (YYYY-MM-DD), or now; by default commit for what is older than half a year.",
            ),
            click.option(
                "--locks",
                metavar="FILE",
                type=click.Path(path_type=Path),
                help="Take the versions of an image: its manifest.json, or what show --json printed.",
            ),
        )
    ):
        function = decorate(function)
    return function


def _as_of(context: click.Context, _: click.Parameter, value: str | None) -> None:
    context.obj.setting({"build.as_of": value})


def kernel_options(function: Function) -> Function:
    """Where kernels are registered."""
    for decorate in reversed(
        (
            click.option(
                "--prefix", metavar="DIR", help="Register below DIR/share/jupyter (default: your own Jupyter folder)."
            ),
            click.option("--name", metavar="NAME", help="Name of the kernel (default: derived from the image's id)."),
        )
    ):
        function = decorate(function)
    return function


def runtime_option(function: Function) -> Function:
    """Which runtime runs the image."""
    return click.option(
        "--runtime",
        metavar="NAME",
        shell_complete=one_of("auto", "apptainer", "charliecloud", "shifter", "podman-hpc", "docker"),
        help="auto, apptainer (or Singularity), charliecloud, shifter, podman-hpc, docker.",
    )(function)

"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Function = Callable[..., Any]


def source_options(function: Function) -> Function:
    """SRC and what selects a part of it."""
    for decorate in reversed(
        (
            click.argument("source", metavar="SRC"),
            click.option("--ref", metavar="REF", help="Branch, tag or commit (default: the remote's HEAD)."),
            click.option("--subdir", metavar="DIR", help="Folder of the repository to build from."),
            click.option(
                "--without",
                metavar="PACK",
                multiple=True,
                help="Leave a buildpack out, and with it the files it reads.",
            ),
        )
    ):
        function = decorate(function)
    return function


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
        help="auto, apptainer (or Singularity), charliecloud, shifter, podman-hpc, docker.",
    )(function)

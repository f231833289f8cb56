"""hpcbinder(1), from the commands themselves: `python -m hpcbinder.cli.man > docs/man/hpcbinder.1`.

Written in the man macros (groff_man(7)) that every man program knows.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from hpcbinder import __version__
from hpcbinder.cli.main import COMMANDS, EXIT_CODES, SHARED, cli
from hpcbinder.config import SITE_FILE

_FILES = (
    (str(SITE_FILE), "The site's settings."),
    ("~/.config/hpcbinder/config.toml", "Yours; below $XDG_CONFIG_HOME if that is set."),
    ("~/.local/share/hpcbinder", "Your images, unless store.path says otherwise."),
)


def page() -> str:
    """The text of the page."""
    with click.Context(cli, info_name="hpcbinder", **cli.context_settings) as context:
        return "\n".join(_page(context)) + "\n"


def _page(context: click.Context) -> Iterator[str]:
    yield '.\\" Written by python -m hpcbinder.cli.man; change hpcbinder/cli instead.'
    yield f'.TH HPCBINDER 1 "" "hpcbinder {_text(__version__)}" "User Commands"'
    yield from (".SH NAME", f"hpcbinder \\- {_text((cli.help or '').rstrip('.').lower())}")
    yield from (".SH SYNOPSIS", ".B hpcbinder", "[OPTIONS] COMMAND [ARGUMENTS]")
    yield from (".SH DESCRIPTION", "Fetches a repository, detects what it needs, builds an image, turns it into what")
    yield "clusters run, and registers it as a Jupyter kernel."
    yield ".SH OPTIONS"
    yield from _options(cli, context)
    yield ".SH COMMANDS"
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        with click.Context(command, info_name=name, parent=context) as inner:
            yield f".SS {_text(name)}"
            yield f".B hpcbinder {_text(name)}"
            yield _text(" ".join(command.collect_usage_pieces(inner)))
            yield from _help(command.help or "")
            yield from _options(command, inner)
    yield ".SH EXIT STATUS"
    for line in EXIT_CODES.splitlines():
        if match := re.fullmatch(r"  (\d+)  (.*)", line):
            yield from (".TP", f".B {match[1]}", _text(match[2]))
    yield from (".PP", ".B run", "otherwise exits with the status of the command it ran.")
    yield ".SH ENVIRONMENT"
    yield from (".TP", ".B HPCBINDER_SECTION_KEY", "The setting")
    yield from (".I key", "of section", ".IR section ;", ".B hpcbinder config", "shows them all.")
    yield ".SH FILES"
    for path, what in _FILES:
        yield from (".TP", f".I {_text(path)}", _text(what))
    yield from (".SH SEE ALSO", ".BR apptainer (1),", ".BR ch\\-run (1),", ".BR docker (1),", ".BR jupyter (1)")


def _help(text: str) -> Iterator[str]:
    """A help text's paragraphs; one that begins with `\\b` keeps its lines, as click has it."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        yield ".PP"
        if paragraph.startswith("\b"):
            yield from (".nf", *map(_text, paragraph.splitlines()[1:]), ".fi")
        else:
            yield _text(" ".join(paragraph.split()))


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        # What every command has is said once, at the top.
        once = parameter in SHARED or "--help" in parameter.opts
        if not isinstance(parameter, click.Option) or (once and command is not cli):
            continue
        if record := parameter.get_help_record(context):
            names, what = record
            yield from (".TP", f".B {_text(names)}", _text(what))


def _text(text: str) -> str:
    """Text as it is: nothing in it is a macro or an escape; a hyphen is one, also for copying."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    escaped = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in escaped)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    print(page(), end="")

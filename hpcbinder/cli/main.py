"""The `hpcbinder` command: global options, lazily loaded commands, errors turned into one line and an exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from hpcbinder import __version__
from hpcbinder.cli.session import Session
from hpcbinder.errors import HpcbinderError
from hpcbinder.text import one_line

# Name -> (module, summary). The summaries stand here so that --help imports no command (start-up is instant).
COMMANDS = {
    "build": ("build", "Fetch, detect, plan, build, convert and register: from a link to a kernel."),
    "plan": ("plan", "Show what would be done and why, without doing it."),
    "run": ("run", "Run a command, or JupyterLab, inside an image."),
    "list": ("images", "List the images of the catalog."),
    "show": ("images", "Show everything known about an image."),
    "rm": ("images", "Remove an image and its kernels."),
    "register": ("kernels", "Register an image's kernels with Jupyter."),
    "unregister": ("kernels", "Remove an image's kernels from Jupyter."),
    "config": ("config", "Show every setting, its value and where it comes from."),
}

EXIT_CODES = """
\b
Exit codes:
  0  done
  1  internal error (a bug: run again with --debug and report it)
  2  usage or configuration
  3  fetch: the source, its ref or its subdirectory could not be had
  4  detect: the repository asks for what cannot be done
  5  build: no engine, no base, or a step failed
  6  convert
  7  register
  8  catalog: no such image, or the store cannot be read or written
  9  run: no runtime here can run the image
  130  interrupted
`run` otherwise exits with the status of the command it ran.
"""


def _set(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and param.name is not None:
        setattr(ctx.obj, param.name, True)


# Options people put at either end of the line: `hpcbinder --json-logs build SRC` and `hpcbinder build SRC --json-logs`.
SHARED = tuple(
    click.Option([name], is_flag=True, expose_value=False, callback=_set, help=text)
    for name, text in (
        ("--debug", "Show tracebacks and the tools' full output."),
        ("--json-logs", "One JSON event per line (phase, message, progress) on stderr."),
    )
)


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"hpcbinder.cli.{COMMANDS[cmd_name][0]}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        command.params += [option for option in SHARED if option not in command.params]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hpcbinder")
@click.option("--store", metavar="DIR", help="Where images are kept (store.path in the configuration).")
@click.pass_context
def cli(ctx: click.Context, store: str | None) -> None:
    """From a link to a repository to a running notebook on the cluster."""
    ctx.obj.store = store


cli.params = [*SHARED, *cli.params]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        argv: Arguments without the program's name; default those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = arguments[: next((i for i, a in enumerate(arguments) if a == "--"), len(arguments))]
    debug = "--debug" in options
    try:
        status = cli.main(arguments, prog_name="hpcbinder", standalone_mode=False, obj=Session())
        sys.stdout.flush()
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.Abort:
        _fail("interrupted", 130, options)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see '{context.command_path} --help')" if context is not None else ""
        _fail(f"{error.format_message()}{hint}", 2, options)
    except HpcbinderError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code, options)
    except KeyboardInterrupt:
        _fail("interrupted", 130, options)
    except BrokenPipeError:
        # The reader went away (`hpcbinder list | head`): nothing is wrong, and stdout must not complain at exit.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        _fail(f"internal error: {type(error).__name__}: {error} (run with --debug and report it)", 1, options)


def _fail(message: str, status: int, options: Sequence[str]) -> None:
    text = one_line(message)
    if "--json-logs" in options:
        import json

        print(json.dumps({"phase": "failed", "message": text, "progress": None, "exit_code": status}), file=sys.stderr)
    else:
        print(f"hpcbinder: {text}", file=sys.stderr)
    sys.exit(status)

"""The `hpcbinder` command: global options, lazily loaded commands, errors turned into one line and an exit code."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

import click

from hpcbinder import __version__
from hpcbinder.cli.session import Session
from hpcbinder.errors import HpcbinderError
from hpcbinder.progress import Unheard
from hpcbinder.text import one_line

# Name -> (module, summary). The summaries stand here so that --help imports no command (start-up is instant).
COMMANDS = {
    "build": ("build", "Fetch, detect, plan, build, convert and register: from a link to a kernel."),
    "plan": ("plan", "Show what would be done and why, without doing it."),
    "init": ("init", "Write config files to begin with: requirements.txt, runtime.txt, apt.txt."),
    "run": ("run", "Run a command, JupyterLab or notebooks inside an image."),
    "collect": ("notebooks", "Wait for notebooks that run as jobs, and say what became of them."),
    "verify": ("verify", "Say whether a repository's notebooks really run in its image."),
    "list": ("images", "List the images of the catalog."),
    "show": ("images", "Show everything known about an image."),
    "rm": ("images", "Remove an image and its kernels."),
    "register": ("kernels", "Register an image: as Jupyter kernels, with JupyterHub, as a module."),
    "unregister": ("kernels", "Take back what register did with an image."),
    "push": ("registries", "Push an image to a registry."),
    "login": ("registries", "Log in to a registry."),
    "logout": ("registries", "Forget the login to a registry."),
    "convert": ("convert", "Convert an image, wherever it is, to files that runtimes take."),
    "inspect": ("files", "Explain a SIF or a squashfs image."),
    "ls": ("files", "List what is inside an image."),
    "cat": ("files", "Print a file that is inside an image."),
    "extract": ("files", "Copy a file or a folder out of an image."),
    "diff": ("files", "Show what differs between two images."),
    "check": ("files", "Read a whole image and say what is damaged."),
    "logs": ("logs", "Show what was said while an image was built."),
    "extend": ("extend", "Make a new image of one, with packages added."),
    "warm": ("warm", "Squash packages ahead, so that images with them are made in seconds."),
    "stats": ("stats", "Say what images have in common, and what that saves."),
    "gc": ("gc", "Remove what nothing needs any more."),
    "doctor": ("doctor", "Say what this machine has, what is missing and what to do."),
    "completion": ("completion", "Print the script that makes a shell complete the words."),
    "config": ("config", "Show every setting, its value and where it comes from."),
}

EXIT_CODES = """
\b
Exit codes:
  0  done
  1  internal error (a bug: run again with --debug and report it)
  2  usage or configuration
  3  fetch: the source, its ref or its subdirectory, or the package index could not be had
  4  detect: the repository asks for what cannot be done
  5  build: no engine, no base, or a step failed
  6  convert: an image cannot be made, or is damaged, or is none
  7  register
  8  catalog: no such image, or the store cannot be read or written
  9  run: no runtime here can run the image
  10  registry: a pull, a push or a login failed
  11  diff: the images differ
  12  verify, run --notebook: a notebook does not run
  130  interrupted
  141  nobody reads any more what is said (stderr was closed in the middle of the work)
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
    _complete_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    session = Session()
    try:
        status = cli.main(arguments, prog_name="hpcbinder", standalone_mode=False, obj=session)
        sys.stdout.flush()
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.Abort:
        _fail("interrupted", 130, json_logs=session.json_logs)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see '{context.command_path} --help')" if context is not None else ""
        # What does not parse may not have come to the option.
        _fail(f"{error.format_message()}{hint}", 2, json_logs=session.json_logs or "--json-logs" in arguments)
    except HpcbinderError as error:
        _trace(session)
        _fail(str(error), error.exit_code, json_logs=session.json_logs)
    except KeyboardInterrupt:
        _fail("interrupted", 130, json_logs=session.json_logs)
    except BrokenPipeError:
        # The reader went away (`hpcbinder list | head`): nothing is wrong.
        _give_up(1)
        sys.exit(0)
    except Unheard:
        _give_up(2)
        sys.exit(141)
    except Exception as error:
        _trace(session)
        if isinstance(error, OSError):
            _fail_for_the_world(error, json_logs=session.json_logs)
        text = f"internal error: {type(error).__name__}: {error} (run with --debug and report it)"
        _fail(text, 1, json_logs=session.json_logs)


def _trace(session: Session) -> None:
    """Show where the error in hand came from, to who asked for it."""
    if session.debug:
        import traceback

        traceback.print_exc()


def _complete_streams() -> None:
    """Give a stream that was closed for us (`>&-`) an end, so that nobody has to ask whether it is there, and so that
    no file of ours becomes the standard output of a tool."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115, PTH123 (it stays open)
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def _fail_for_the_world(error: OSError, *, json_logs: bool) -> None:
    """Fail for what is nobody's bug and can happen to every command; return if it is something else."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        _give_up(1)
        where = f" {error.filename}" if error.filename else ""
        _fail(f"cannot write{where}: {error.strerror}", 1, json_logs=json_logs)
    try:
        os.getcwd()  # noqa: PTH109
    except OSError:
        _fail("the working directory is gone (change to another one)", 2, json_logs=json_logs)


def _give_up(stream: int) -> None:
    """What is still buffered for stdout (1) or stderr (2) goes nowhere: Python would complain about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def _fail(message: str, status: int, *, json_logs: bool) -> None:
    text = one_line(message)
    line = f"hpcbinder: {text}"
    if json_logs:
        import json

        line = json.dumps({"phase": "failed", "message": text, "progress": None, "exit_code": status})
    try:
        print(line, file=sys.stderr, flush=True)
    except BrokenPipeError:
        _give_up(2)
    sys.exit(status)

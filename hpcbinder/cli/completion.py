"""`hpcbinder completion`, and what is offered for the words that only we know: ids, names of settings' values.

Runs at each press of the tab key: nothing heavy may be imported, and nothing may be said or fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from hpcbinder.errors import HpcbinderError

if TYPE_CHECKING:
    from hpcbinder.cli.session import Session

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_HPCBINDER_COMPLETE"
"""What click asks the program with for completions (click.shell_completion)."""

Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(shell: str) -> None:
    """Print the script that makes SHELL complete hpcbinder's words.

    \b
      bash:  eval "$(hpcbinder completion bash)"      in ~/.bashrc
      zsh:   eval "$(hpcbinder completion zsh)"       in ~/.zshrc
      fish:  hpcbinder completion fish > ~/.config/fish/completions/hpcbinder.fish
    """
    from click.shell_completion import ShellComplete, get_completion_class

    from hpcbinder.cli.main import cli

    cls = get_completion_class(shell)
    assert cls is not None
    # Not bash's own `source`, which starts a bash to look at its version.
    click.echo(ShellComplete.source(cls(cli, {}, "hpcbinder", VARIABLE)))


def complete_id(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Ids of images."""
    return [CompletionItem(id_) for id_ in _ids(ctx, logs=False) if id_.startswith(incomplete)]


def complete_log(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Ids of images, and of those that only have a log."""
    return [CompletionItem(id_) for id_ in _ids(ctx, logs=True) if id_.startswith(incomplete)]


def complete_source(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Folders."""
    return [CompletionItem(incomplete, type="dir")]


def complete_id_or_source(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Ids of images, or folders where no id begins so."""
    return complete_id(ctx, param, incomplete) or complete_source(ctx, param, incomplete)


def complete_file_or_id(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Ids of images, or files where no id begins so."""
    return complete_id(ctx, param, incomplete) or [CompletionItem(incomplete, type="file")]


def one_of(*words: str) -> Completion:
    """Some words; what the setting takes is checked elsewhere."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]

    return complete


def _ids(ctx: click.Context, *, logs: bool) -> list[str]:
    session: Session = ctx.obj
    session.store = ctx.find_root().params.get("store")  # no callback runs before a completion
    try:
        return list(session.catalog.ids(logs=logs))
    except (HpcbinderError, OSError):
        return []

"""What `verify` found, for people: a table on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from hpcbinder.text import printable

if TYPE_CHECKING:
    from hpcbinder.verify import Missing, Verdict, Verification

_STYLES = {"runs": "green", "network": "yellow", "data": "yellow", "untried": "yellow"}


def verdicts(found: Verification) -> None:
    """Everything, a verdict for each notebook, and the sum in the last line."""
    if sys.stdout.isatty():
        _tables(found)
    else:
        for line in _lines(found):
            sys.stdout.write(f"{printable(line)}\n")


def _lines(found: Verification) -> list[str]:
    lines = []
    for missing in found.missing:
        lines.append(f"import {missing.what}: {_reason(missing)}")
        lines += _advice(_todo(missing))
    for verdict in _shown(found):
        lines.append(f"{verdict.notebook}: {verdict.line}")
        lines += [f"    {text}" for text in _more(verdict)]
    lines += [f"note: {note}" for note in found.notes]
    return [*lines, f"{found.id}: {found.summary} ({found.runtime}, network {found.network})"]


def _tables(found: Verification) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)

    def cell(text: str, style: str = "") -> Any:
        return Text("\n".join(map(printable, text.split("\n"))), style=style)

    def table(*columns: str) -> Any:
        made = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            made.add_column(column, overflow="fold")
        return made

    if found.missing:
        imports = table("IMPORT", "WHERE AND WHY", "WHAT TO DO")
        for missing in found.missing:
            imports.add_row(cell(missing.what), cell(_reason(missing)), cell(_todo(missing)))
        console.print(imports)
        console.print()
    if shown := _shown(found):
        from hpcbinder.verify import WORDS

        notebooks = table("NOTEBOOK", "VERDICT", "WHAT HAPPENED", "TIME")
        for verdict in shown:
            notebooks.add_row(
                cell(verdict.notebook),
                cell(WORDS[verdict.status], _STYLES.get(verdict.status.value, "red")),
                cell("\n".join([verdict.line, *_more(verdict)])),
                cell(f"{verdict.seconds:.1f} s"),
            )
        console.print(notebooks)
    for note in found.notes:
        console.print(printable(note), markup=False)
    text = f"{found.id}: {found.summary} ({found.runtime}, network {found.network})"
    console.print(Text(text, style="bold green" if found.passed else "bold red"))


def _shown(found: Verification) -> list[Verdict]:
    """Without those that nobody wanted to be run."""
    return [verdict for verdict in found.notebooks if found.ran or verdict.status.value != "untried"]


def _reason(missing: Missing) -> str:
    more = f" and {missing.others} more" if missing.others else ""
    return f"{missing.place}{more}: {missing.error}: {missing.message}"


def _todo(missing: Missing) -> str:
    return missing.cause or (f"add {missing.distribution} to the requirements" if missing.distribution else "")


def _advice(text: str) -> list[str]:
    return [f"    {text}"] if text else []


def _more(verdict: Verdict) -> list[str]:
    failure = verdict.failure
    lines = [f"{failure.line}  ({failure.frame})" if failure.frame else failure.line] if failure else []
    if failure and not failure.line:
        lines = [failure.frame]
    return [text for text in (*lines, verdict.cause, *verdict.notes) if text]

"""What the pages of figures have in common: tables in Markdown, the machine's line, and where they are put."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def put(text: str, page: Path, begin: str, end: str) -> None:
    """Replace the tables on a page of the documentation: what stands between the lines `begin` and `end`."""
    before, _, rest = page.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        sys.exit(f"{page} lacks the lines {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")


def whole(machine: str, sections: Mapping[str, str]) -> str:
    """All tables, each below its title; those without a row are left out."""
    parts = [machine, *(f"### {title}\n\n{body}" for title, body in sections.items() if body)]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; all but the first `left` columns are numbers. Nothing if there are no rows."""
    rows = list(rows)
    if not rows:
        return ""
    marks = ["---" if number < left else "---:" for number in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, marks, *rows))


def machine_line(machine: Mapping[str, Any], loads: Sequence[float]) -> str:
    """What a reader of the figures wants to know of where they are from.

    Args:
        machine: `date`, `cores`, `memory` (bytes), `system`, `user`, `programs` and `rounds`.
        loads: Load of the machine before each measurement.
    """
    programs = ", ".join(machine["programs"].values())
    text = (
        f"{machine['date']}: {machine['cores']} cores, {machine['memory'] / 1e9:.0f} GB, {machine['system']}, "
        f"as {machine['user']}; {programs}."
    )
    if loads:
        rounds = "One round" if machine["rounds"] == 1 else f"Medians of {machine['rounds']} rounds"
        text += (
            f" {rounds}; load before a measurement: median {statistics.median(loads):.1f}, at most {max(loads):.1f}."
        )
    return text

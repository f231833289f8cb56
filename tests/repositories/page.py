"""What came of all of them, as docs/repositories.md has it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.page import table

from .expected import Expected, differences

HEAD = ("repository", "what it is for", "outcome", "built by", "build, s", "in all, s")
_REPOS = "../tests/repos"


def markdown(expected: Mapping[str, Expected], records: Mapping[str, Mapping[str, Any]]) -> str:
    """The figure and the table.

    Args:
        records: By name, as the runner returns them; `{"needs": …}` for one that was not built.
    """
    rows = []
    counted: Counter[str] = Counter()
    for name, each in expected.items():
        record = records.get(name)
        kind, said = _outcome(each, record)
        counted[kind] += 1
        rows.append((f"[{name}]({_REPOS}/{name})", each.shows, said, *_figures(record or {})))
    return f"**{figure(counted)}**\n\n{table(HEAD, rows, left=4)}\n"


def figure(counted: Mapping[str, int]) -> str:
    """All in one line."""
    built = counted["as expected"] + counted["otherwise"]
    said = f"{counted['as expected']} of {built} repositories that were tried end as they should"
    return f"{said}; {counted['not here']} need what is not reached here, {counted['not tried']} were not tried."


def _outcome(expected: Expected, record: Mapping[str, Any] | None) -> tuple[str, str]:
    if record is None:
        return "not tried", "not tried"
    if record.get("needs"):
        return "not here", f"not built: needs {record['needs']}"
    found = differences(expected, record)
    if found:
        return "otherwise", f"**otherwise than expected**: {_plain('; '.join(found))}"
    if expected.refused:
        return "as expected", f"refused: {_plain(_without_hint(record['error']))}"
    if expected.breaks:
        return "as expected", f"its build fails: {_plain(_without_hint(record['error']))}"
    return "as expected", "; ".join(("is built", *_ran(record)))


def _ran(record: Mapping[str, Any]) -> Iterable[str]:
    verdicts = record["verdicts"]
    good = [verdict for verdict in verdicts if verdict["status"] == "runs"]
    if good and len(good) == len(verdicts):
        yield "its notebook runs" if len(good) == 1 else f"its {len(good)} notebooks run"
    else:
        for verdict in verdicts:
            yield f"`{Path(verdict['notebook']).name}` " + ("runs" if verdict in good else _plain(verdict["line"]))
    if record["missing"]:
        yield f"not there: {', '.join(sorted({each['module'] for each in record['missing']}))}"
    if record["commands"]:
        yield f"in it {', '.join(_plain(done['line']) for done in record['commands'])}"


def _figures(record: Mapping[str, Any]) -> tuple[str, str, str]:
    built = record.get("built") or {}
    builder = str(built.get("builder", ""))
    if built.get("ran"):
        builder += f" (ran {built['ran']})"
    seconds = [f"{record[key]:.0f}" if key in record else "" for key in ("build_seconds", "seconds")]
    return (builder, seconds[0], seconds[1])


def _without_hint(error: str) -> str:
    """What stands before the last thing in brackets."""
    depth = 0
    for index in range(len(error) - 1, 0, -1):
        depth += {")": 1, "(": -1}.get(error[index], 0)
        if not depth:
            return error[:index].strip() if error[index] == "(" else error
    return error


def _plain(line: str) -> str:
    """Text in one line that is no markup and no cell's end, without the folder it was done in."""
    line = re.sub(r"file://\S*/", "file://…/", line)
    return "`" + " ".join(line.replace("`", "'").replace("|", "¦").split())[:300] + "`"

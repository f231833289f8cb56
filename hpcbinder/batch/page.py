"""A run as one HTML page that needs nothing else: no script, no font, no picture."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from hpcbinder.batch.outcome import ENDED, Outcome, Run, State, plain
from hpcbinder.text import one_line

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  color: #222; background: #fff }
h1 { font-size: 1.4rem; margin-bottom: 0 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid #ddd;
  overflow-wrap: anywhere }
th { white-space: nowrap }
td.number { text-align: right; white-space: nowrap }
.mark { white-space: nowrap; font-weight: 600 }
.done { color: #17692c }
.failed, .lost, .cancelled { color: #a61b1b }
.waiting, .running { color: #8a5a00 }
.more { color: #555 }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #161616 }
  a { color: #8ab4f8 }
  th, td { border-color: #3a3a3a }
  .done { color: #6fce86 }
  .failed, .lost, .cancelled { color: #ff8c8c }
  .waiting, .running { color: #e8b75a }
  .more { color: #aaa }
}
"""
_LONGEST = 200


def index_page(run: Run, tasks: Sequence[Outcome], *, now: float | None = None) -> bytes:
    """The page's content. Everything that is not ours is escaped, and the page may load nothing.

    Args:
        now: Unix time (s), the present if None.
    """
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time.time() if now is None else now))
    names = list(dict.fromkeys(name for task in tasks for name in task.parameters))
    heads = "".join(f"<th>{_t(name)}" for name in names)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_t(summary(tasks))}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_t(summary(tasks))}</h1>",
        f'<p class="more">{_t(run.image)}, {_t(when)}</p>',
        f"<table><tr><th>task<th>state<th>notebook{heads}<th>seconds<th>what happened</tr>",
        *(_row(task, names) for task in tasks),
        "</table>",
    ]
    return ("\n".join([*parts, "</body></html>"]) + "\n").encode("utf-8", "replace")


def summary(tasks: Sequence[Outcome]) -> str:
    """`2 of 3 notebooks executed, 1 failed`."""
    counts = {state: sum(task.state is state for task in tasks) for state in State}
    others = [f"{count} {state.value}" for state, count in counts.items() if count and state is not State.DONE]
    total = f"{len(tasks)} notebook{'s' * (len(tasks) != 1)}"
    return ", ".join([f"{counts[State.DONE]} of {total} executed", *others])


def shown(value: object) -> str:
    """A parameter's value for a person."""
    return one_line(value if isinstance(value, str) else json.dumps(plain(value)), _LONGEST)


def _row(task: Outcome, names: Sequence[str]) -> str:
    target = task.page or task.output
    name = _t(task.name)
    link = f'<a href="{_t(quote(target.name))}">{name}</a>' if target else name
    values = "".join(f"<td>{_t(shown(task.parameters[name])) if name in task.parameters else ''}" for name in names)
    lines = [_t(text) for text in (task.said, *task.notes) if text]
    seconds = f"{task.seconds:.1f}" if task.state in ENDED and task.seconds else ""
    return (
        f'<tr><td>{link}<td class="mark {task.state.value}">{task.state.value}<td>{_t(task.notebook)}{values}'
        f'<td class="number">{seconds}<td>{"<br>".join(lines)}</tr>'
    )


def _t(text: str) -> str:
    """Text between tags or in an attribute."""
    return escape(one_line(text), quote=True)

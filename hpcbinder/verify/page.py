"""A verification as one HTML page that needs nothing else: no script, no font, no picture."""

from __future__ import annotations

import time
from html import escape

from hpcbinder.text import one_line
from hpcbinder.verify.verdict import WORDS, Missing, Status, Verdict, Verification

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
  color: #222; background: #fff }
h1 { font-size: 1.4rem; margin-bottom: 0 }
h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid #ddd;
  overflow-wrap: anywhere }
th { white-space: nowrap }
code { font-size: .9em }
.mark { white-space: nowrap; font-weight: 600 }
.runs { color: #17692c }
.fails, .timeout, .kernel, .unreadable { color: #a61b1b }
.network, .data, .untried { color: #8a5a00 }
.more { color: #555 }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #161616 }
  th, td { border-color: #3a3a3a }
  .runs { color: #6fce86 }
  .fails, .timeout, .kernel, .unreadable { color: #ff8c8c }
  .network, .data, .untried { color: #e8b75a }
  .more { color: #aaa }
}
"""


def html_page(found: Verification) -> bytes:
    """The page's content. Everything that is not ours is escaped, and the page may load nothing."""
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.created))
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_t(found.id)}: {_t(found.summary)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_t(found.id)}</h1>",
        f"<p><strong>{_t(found.summary)}</strong><br>",
        f'<span class="more">{_t(when)}, by {_t(found.runtime)}, network {_t(found.network)}</span></p>',
        *(f"<p>{_t(note)}</p>" for note in found.notes),
    ]
    if found.notebooks:
        parts.append("<h2>Notebooks</h2><table><tr><th>notebook<th>verdict<th>what happened<th>time</tr>")
        parts += map(_notebook, found.notebooks)
        parts.append("</table>")
    if found.missing:
        parts.append("<h2>Imports that fail</h2><table><tr><th>import<th>where<th>error<th>what to do</tr>")
        parts += map(_import, found.missing)
        parts.append("</table>")
    return ("\n".join([*parts, "</body></html>"]) + "\n").encode("utf-8", "replace")


def _notebook(verdict: Verdict) -> str:
    lines = [_t(verdict.line)]
    if verdict.failure:
        lines += [f"<code>{_t(text)}</code>" for text in (verdict.failure.line, verdict.failure.frame) if text]
    lines += [f'<span class="more">{_t(text)}</span>' for text in (verdict.cause, *verdict.notes) if text]
    seconds = f"{verdict.seconds:.1f} s" if verdict.status is not Status.UNTRIED else ""
    return (
        f"<tr><td>{_t(verdict.notebook)}"
        f'<td class="mark {verdict.status.value}">{_t(WORDS[verdict.status])}'
        f"<td>{'<br>'.join(lines)}<td>{seconds}</tr>"
    )


def _import(missing: Missing) -> str:
    more = f' <span class="more">and {missing.others} more</span>' if missing.others else ""
    todo = missing.cause or (f"add {missing.distribution}" if missing.distribution else "")
    return (
        f"<tr><td><code>{_t(missing.what)}</code><td>{_t(missing.place)}{more}"
        f"<td>{_t(missing.error)}: {_t(missing.message)}<td>{_t(todo)}</tr>"
    )


def _t(text: str) -> str:
    """Text between tags or in an attribute."""
    return escape(one_line(text), quote=True)

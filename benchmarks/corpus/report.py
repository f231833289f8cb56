"""The table and the one figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.page import table

HEAD = ("repository", "notebook", "verdict", "Python", "as of", "built by", "build, s", "run, s")
_WORDS = {"runs": "runs", "network": "needs the network", "data": "needs a data file", "timeout": "takes too long"}


def runs(record: dict[str, Any]) -> bool:
    """All its notebooks run."""
    verdicts = record["verdicts"]
    return bool(verdicts) and all(verdict["status"] == "runs" for verdict in verdicts)


def figure(records: Sequence[dict[str, Any]]) -> str:
    """The one figure, and those that are counted apart."""
    plain = [record for record in records if not record["needs"]]
    apart = [record for record in records if record["needs"]]
    good = sum(map(runs, plain))
    share = f" ({100 * good / len(plain):.0f} %)" if plain else ""
    said = f"In {good} of {len(plain)} repositories{share} that need nothing unreachable, the notebook runs"
    if apart:
        said += f"; so it does in {sum(map(runs, apart))} of {len(apart)} that need more"
    return f"{said}."


def text(records: Sequence[dict[str, Any]]) -> str:
    """For a terminal: a line for each notebook, causes below them, and the figure."""
    lines = []
    for record in records:
        for notebook, verdict, cause in _verdicts(record):
            lines.append(f"{record['name']}: {notebook}: {verdict}  [{', '.join(filter(None, _built(record)[:3]))}]")
            lines += [f"    {line}" for line in cause]
    return "\n".join([*lines, "", figure(records)])


def markdown(records: Sequence[dict[str, Any]]) -> str:
    """For the documentation: the figure, the tables, and the causes of what fails."""
    parts = [f"**{figure(records)}**"]
    for title, chosen in (
        ("", [record for record in records if not record["needs"]]),
        ("Those that need more", [record for record in records if record["needs"]]),
    ):
        if chosen:
            parts += [f"### {title}"] if title else []
            parts.append(table(HEAD, list(_rows(chosen)), left=6))
    causes = [
        f"- {record['name']}, `{notebook}`: {_plain(' '.join(cause) or verdict)}"
        for record in records
        for notebook, verdict, cause in _verdicts(record)
        if verdict != _WORDS["runs"]
    ]
    if causes:
        parts += ["### What does not run, and why", "\n".join(causes)]
    return "\n\n".join(parts) + "\n"


def _rows(records: Iterable[dict[str, Any]]) -> Iterable[tuple[str, ...]]:
    for record in records:
        needs = f" (needs {record['needs']})" if record["needs"] else ""
        for notebook, verdict, _ in _verdicts(record):
            shown = verdict if verdict == _WORDS["runs"] else f"**{verdict}**"
            python, as_of, builder, seconds = _built(record)
            took = next((f"{each['seconds']:.0f}" for each in record["verdicts"] if each["notebook"] == notebook), "")
            name = f"[{record['name']}](https://github.com/{record['name']}/tree/{record['commit']}){needs}"
            yield (name, f"`{Path(notebook).name}`", shown, python, as_of, builder, seconds, took)


def _built(record: dict[str, Any]) -> tuple[str, str, str, str]:
    built = record.get("built") or {}
    builder = built.get("builder", "")
    if built.get("ran"):
        builder += f" (ran {built['ran']})"
    return (
        built.get("python", ""),
        built.get("as_of") or ("now" if built else ""),
        builder,
        f"{record['build_seconds']:.0f}",
    )


def _verdicts(record: dict[str, Any]) -> Iterable[tuple[str, str, list[str]]]:
    """(notebook, verdict, what there is to say of it)."""
    found = {verdict["notebook"]: verdict for verdict in record["verdicts"]}
    for notebook in record["notebooks"]:
        verdict = found.get(notebook)
        if verdict is None:
            yield notebook, "not verified" if record.get("built") else "not built", [record.get("error", "")]
        else:
            word = _WORDS.get(verdict["status"], "fails")
            cause = [verdict["line"], verdict["cause"]] if word != "runs" else []
            yield notebook, word, [line for line in cause if line]


def _plain(line: str) -> str:
    """Text of others on a page: in one line, none of it markup, and without the name of somebody's home."""
    return "`" + " ".join(line.replace("`", "'").replace(str(Path.home()), "~").split())[:400] + "`"

"""In how many real repositories does the notebook run in the image?

    python -m benchmarks.corpus LIST --from FOLDER_OR_URL_PREFIX [--out DIR] [--docs] [-- OPTIONS OF hpcbinder build]

Builds each repository of LIST (lines `owner/name COMMIT NOTEBOOK [needs:WHAT]`) at its commit and lets
`hpcbinder verify` run its notebooks in the image, with the network off; prints a table and one figure, and writes the
same to DIR. What is configured for hpcbinder holds, but for the store, which lies in DIR.

A repository that was done before is not done again, so that an interrupted run goes on where it was; `--again` does the
named ones anew. Repositories come from a folder (`owner/name` or `owner+name` in it, bare or not) or from a URL prefix
(`https://github.com/`, `gh:`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.corpus import report
from benchmarks.corpus.listing import Repository, read_list, source_of
from benchmarks.corpus.running import Limits, run
from benchmarks.page import put

DOCS = Path(__file__).parent.parent.parent / "docs" / "corpus.md"


def main() -> None:
    """Build, verify and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus")
    parser.add_argument("list", type=Path, metavar="LIST", help="lines `owner/name COMMIT NOTEBOOK [needs:WHAT]`")
    parser.add_argument("--from", dest="place", required=True, help="folder or URL prefix where the repositories lie")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results/corpus"))
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="these repositories alone")
    parser.add_argument("--again", action="append", default=[], metavar="NAME", help="do it anew (`all`: every one)")
    parser.add_argument("--build-seconds", type=float, default=1800, help="for a build (default: 1800)")
    parser.add_argument("--notebook-seconds", type=float, default=600, help="for a notebook (default: 600)")
    parser.add_argument("--memory", type=float, default=8, help="GB, for a build or a notebook (default: 8)")
    parser.add_argument("--docs", action="store_true", help="put the table into docs/corpus.md too")
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    options, more = parser.parse_args(words[:split]), words[split + 1 :]
    wanted = [each for each in read_list(options.list) if not options.only or each.name in options.only]
    limits = Limits(options.build_seconds, options.notebook_seconds, int(options.memory * 1e9))
    out = options.out.absolute()
    for folder in (out / "records", out / "logs"):
        folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number, repository in enumerate(wanted, 1):
        file = out / "records" / f"{repository.slug}.json"
        record = None if {"all", repository.name} & set(options.again) else _done(file, repository, more)
        if record is None:
            print(f"{number} of {len(wanted)}: {repository.name}", flush=True)
            record = _one(repository, options.place, out, limits, more)
            _write(file, record)
        records.append(record)
    said = report.text(records)
    _write(out / "results.json", {"figure": report.figure(records), "records": records})
    (out / "results.txt").write_text(f"{said}\n")
    print(said)
    if options.docs:
        put(report.markdown(records), DOCS, "<!-- table -->", "<!-- end of table -->")


def _one(repository: Repository, place: str, out: Path, limits: Limits, more: list[str]) -> dict[str, Any]:
    try:
        source = source_of(repository, place)
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from error
    found: dict[str, Any] = run(repository, source, store=out / "store", logs=out / "logs", limits=limits, more=more)
    return found


def _done(file: Path, repository: Repository, more: list[str]) -> dict[str, Any] | None:
    """What was found before, if the same was wanted then."""
    try:
        record: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    same = (repository.commit, list(repository.notebooks), more)
    if (record["commit"], record["notebooks"], record["options"]) != same:
        return None
    return {**record, "needs": repository.needs}


def _write(file: Path, value: Any) -> None:
    """Whole or not at all: a run may be killed at any time."""
    fresh = file.with_suffix(".new")
    with fresh.open("w") as stream:
        json.dump(value, stream, indent=1, ensure_ascii=False)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)


if __name__ == "__main__":
    main()

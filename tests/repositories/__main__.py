"""Build and run the repositories of tests/repos, with what this machine has.

    python -m tests.repositories [NAME...] [--out DIR] [--again] [--docs]

What is expected of each stands in expected.toml beside this file. One that was done before is not done again, so that
an interrupted run goes on where it was; `--again` does all (or the named ones) anew. Ends with 1 if something came
otherwise than expected.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.page import put

from . import page
from .expected import Expected, differences, read_expected
from .runner import PYTHONS, Place, build_and_run, needs_of

DOCS = Path(__file__).parent.parent.parent / "docs" / "repositories.md"


def main() -> int:
    """Do what the command line says; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.repositories",
        description="build and run the repositories of tests/repos",
        epilog=f"{PYTHONS} may name a folder of interpreters, called after their versions, for those that want one.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="these alone")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results/repositories"))
    parser.add_argument("--again", action="store_true", help="do anew what was done before")
    parser.add_argument("--docs", action="store_true", help="put the table into docs/repositories.md too")
    options = parser.parse_args()
    expected = read_expected()
    unknown = set(options.names) - expected.keys()
    if unknown:
        parser.error(f"no such repository: {', '.join(sorted(unknown))}")
    out = options.out.absolute()
    (out / "records").mkdir(parents=True, exist_ok=True)
    place = Place(out, out / "store", os.environ)
    records: dict[str, Any] = {}
    bad = 0
    for name, each in expected.items():
        wanted = not options.names or name in options.names
        record = _record(name, each, place, again=options.again and wanted, do=wanted)
        if record is None:
            continue
        records[name] = record
        found = [] if record.get("needs") else differences(each, record)
        bad += wanted and bool(found)
        if wanted:
            said = f"needs {record['needs']}" if record.get("needs") else "; ".join(found) or "as expected"
            print(f"{name}: {said}", flush=True)
    text = page.markdown(expected, records)
    print(text.partition("\n")[0].strip("*"))
    if options.docs:
        put(text, DOCS, "<!-- table -->", "<!-- end of table -->")
    return int(bool(bad))


def _record(name: str, expected: Expected, place: Place, *, again: bool, do: bool) -> dict[str, Any] | None:
    """What came of it, now or before; None if it was not done and is not to be."""
    needs = needs_of(name, expected)
    if needs:
        return {"needs": needs}
    file = place.folder / "records" / f"{name}.json"
    if file.exists() and not again:
        found: dict[str, Any] = json.loads(file.read_text())
        return found
    if not do:
        return None
    found = build_and_run(name, expected, place)
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(found, indent=1, ensure_ascii=False))
    fresh.replace(file)
    return found


if __name__ == "__main__":
    sys.exit(main())

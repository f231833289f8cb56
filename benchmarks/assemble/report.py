"""Tables of a run, in Markdown: for the terminal and for the documentation.

    python -m benchmarks.assemble.report RESULTS.json [PAGE]

With a page, what is between its two marks is replaced.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import page
from benchmarks.assemble.claims import judge
from benchmarks.assemble.equivalence import Equal
from benchmarks.assemble.figures import Figure, Results
from benchmarks.convert.claims import Claim

BEGIN, END = "<!-- figures: written by benchmarks.assemble -->", "<!-- end of figures -->"
_TOOLS = {
    "hpcbinder": "hpcbinder",
    "merge": "hpcbinder, all packages seen",
    "uv": "uv pip install",
    "docker": "docker build",
    "apptainer": "apptainer build",
}


def text(results: Results) -> str:
    """All tables."""
    sections = {
        "Claims": _claims(judge(results)),
        "From a link to a kernel, all packages seen": _costs(results.select(part="seen"), ("merge",)),
        f"From a lock to an environment, {results.machine.get('compression', '')}": _growth(results),
        "Courses that share most packages": _courses(results),
        "The same tree": _equal(results),
        "Left out": "\n".join(f"- {line}" for line in results.left_out),
    }
    loads = [figure.load for figure in results.figures]
    return page.whole(page.machine_line(results.machine, loads), sections)


def put(results: Results, path: Path) -> None:
    """Replace the tables on a page of the documentation."""
    page.put(text(results), path, BEGIN, END)


def _claims(claims: list[Claim]) -> str:
    rows = [
        (claim.text, claim.image, claim.measured, "holds" if claim.holds else "**does not hold**") for claim in claims
    ]
    return page.table(("claim", "with", "measured (ours; theirs)", ""), rows, 4)


def _costs(figures: list[Figure], without: Sequence[str]) -> str:
    rows = []
    for tool in dict.fromkeys(figure.tool for figure in figures if figure.tool not in without):
        found = [figure for figure in figures if figure.tool == tool]
        rows.append((_TOOLS[tool], *_cost(found), _size(found)))
    return page.table(("", "wall", "CPU", "memory", "file"), rows)


def _growth(results: Results) -> str:
    rows = []
    keys = dict.fromkeys(
        (figure.packages, figure.tool)
        for figure in sorted(results.figures, key=lambda figure: figure.packages)
        if figure.tool in ("hpcbinder", "merge", "uv") and (figure.part == "unseen" or figure.tool == "merge")
    )
    for packages, tool in keys:
        part = "seen" if tool == "merge" else "unseen"
        found = results.select(part=part, tool=tool, packages=packages)
        files = f"{found[0].files:,}" if found[0].files else ""
        rows.append((str(packages), _TOOLS[tool], files, _size(found), *_cost(found)))
    return page.table(("packages", "by", "files", "file", "wall", "CPU", "memory"), rows, 2)


def _cost(found: list[Figure]) -> tuple[str, str, str]:
    return (
        f"{statistics.median(figure.wall for figure in found):.2f} s",
        f"{statistics.median(figure.cpu for figure in found):.1f} s",
        f"{max(figure.peak for figure in found) / 1e6:.0f} MB",
    )


def _size(found: list[Figure]) -> str:
    size = max(figure.size for figure in found)
    return f"{size / 1e6:.0f} MB" if size else ""


def _courses(results: Results) -> str:
    tables = []
    for each in results.courses:
        rows = [
            (f"{each.images} SIFs, one by one", f"{each.alone / 1e9:.2f} GB"),
            ("the different layers that they were made of", f"{each.layers / 1e9:.2f} GB"),
            (f"the store with all of them ({each.file_system})", f"{each.used / 1e9:.2f} GB"),
            (
                "what a course adds to it, packages nobody had among that, the mean",
                f"{(each.used - each.empty) / each.images / 1e6:.0f} MB",
            ),
            ("the store before the first: base, server, downloads", f"{each.empty / 1e9:.2f} GB"),
            ("a build, median", f"{statistics.median(each.walls):.1f} s"),
        ]
        tables.append(page.table(("", ""), rows))
    return "\n\n".join(tables)


def _equal(results: Results) -> str:
    rows = []
    for each in results.equal:
        run = each.check is not None
        rows.append(
            (
                each.name,
                str(each.asked),
                str(each.packages),
                f"{each.files:,}",
                str(len(each.different)),
                ("sound" if each.check == "No broken requirements found." else "**broken**") if run else "",
                f"{each.versions}" if run else "",
                f"{each.imported}" + (f" ({len(each.neither)} in neither)" if each.neither else "") if run else "",
                _extensions(each) if run else "",
                ", ".join(each.kernels),
            )
        )
    head = ("environment", "asked for", "packages", "files", "different", "pip check", "versions right", "imported")
    table = page.table((*head, "lab extensions", "kernels"), rows)
    notes = [f"- {each.name}: {name}: {why}" for each in results.equal for name, why in sorted(each.neither.items())]
    return table + (
        "\n\nImported neither in the image nor in uv's environment:\n\n" + "\n".join(notes) if notes else ""
    )


def _extensions(equal: Equal) -> str:
    bad = f" ({len(equal.bad)} bad)" if equal.bad else ""
    return f"{equal.extensions}{bad}" if equal.extensions else "not counted"


if __name__ == "__main__":
    found = Results.read(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        put(found, Path(sys.argv[2]))
    else:
        print(text(found), end="")

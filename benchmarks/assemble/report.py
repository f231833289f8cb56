"""Tables of a run, in Markdown: for the terminal and for the documentation.

    python -m benchmarks.assemble.report RESULTS.json [PAGE]

With a page, what is between its two marks is replaced.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.assemble.claims import judge
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
    parts = [_machine(results), *(f"### {title}\n\n{body}" for title, body in sections.items() if body)]
    return "\n\n".join(parts) + "\n"


def put(results: Results, page: Path) -> None:
    """Replace the tables on a page of the documentation."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"{page} lacks the lines {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text(results)}\n{END}{after}")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; all but the first `left` columns are numbers. Nothing if there are no rows."""
    rows = list(rows)
    if not rows:
        return ""
    marks = ["---" if number < left else "---:" for number in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, marks, *rows))


def _machine(results: Results) -> str:
    machine = results.machine
    programs = ", ".join(machine["programs"].values())
    text = (
        f"{machine['date']}: {machine['cores']} cores, {machine['memory'] / 1e9:.0f} GB, {machine['system']}, "
        f"as {machine['user']}; {programs}."
    )
    if loads := [figure.load for figure in results.figures]:
        text += (
            f" Medians of {machine['rounds']} round(s); load before a measurement: median "
            f"{statistics.median(loads):.1f}, at most {max(loads):.1f}."
        )
    return text


def _claims(claims: list[Claim]) -> str:
    rows = [
        (claim.text, claim.image, claim.measured, "holds" if claim.holds else "**does not hold**") for claim in claims
    ]
    return _table(("claim", "with", "measured (ours; theirs)", ""), rows, 4)


def _costs(figures: list[Figure], without: Sequence[str]) -> str:
    rows = []
    for tool in dict.fromkeys(figure.tool for figure in figures if figure.tool not in without):
        found = [figure for figure in figures if figure.tool == tool]
        rows.append((_TOOLS[tool], *_cost(found), _size(found)))
    return _table(("", "wall", "CPU", "memory", "file"), rows)


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
    return _table(("packages", "by", "files", "file", "wall", "CPU", "memory"), rows, 2)


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
        tables.append(_table(("", ""), rows))
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
                f"{each.extensions}" + (f" ({len(each.bad)} bad)" if each.bad else "") if run else "",
                ", ".join(each.kernels),
            )
        )
    head = ("environment", "asked for", "packages", "files", "different", "pip check", "versions right", "imported")
    table = _table((*head, "lab extensions", "kernels"), rows)
    notes = [f"- {each.name}: {name}: {why}" for each in results.equal for name, why in sorted(each.neither.items())]
    return table + (
        "\n\nImported neither in the image nor in uv's environment:\n\n" + "\n".join(notes) if notes else ""
    )


if __name__ == "__main__":
    found = Results.read(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        put(found, Path(sys.argv[2]))
    else:
        print(text(found), end="")

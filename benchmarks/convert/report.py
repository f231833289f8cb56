"""Tables of a run, in Markdown: for the terminal and for the documentation.

    python -m benchmarks.convert.report RESULTS.json [PAGE]

With a page, what is between its two marks is replaced.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import page
from benchmarks.convert.claims import Claim, judge, points
from benchmarks.convert.figures import Figure, Results

BEGIN, END = "<!-- figures: written by benchmarks.convert -->", "<!-- end of figures -->"
_TOOLS = {"hpcbinder": "hpcbinder convert", "mksquashfs": "mksquashfs", "apptainer": "apptainer build"}
_SOURCES = {
    "oci": "OCI layout",
    "tar": "OCI layout, layers uncompressed",
    "docker": "Docker",
    "podman": "podman",
    "tree": "unpacked tree",
}


def text(results: Results) -> str:
    """All tables."""
    sections = {
        "Images": _images(results),
        "Claims": _claims(judge(results)),
        "Nothing cached": _costs(results, "nothing"),
        "All layers cached but a small top one": _costs(results, "all but the top"),
        "Growth": _growth(results),
        "Start of Python with numpy": _starts(results),
        "Left out": "\n".join(f"- {line}" for line in results.left_out),
    }
    loads = [figure.load for figure in results.figures]
    return page.whole(page.machine_line(results.machine, loads), sections)


def put(results: Results, path: Path) -> None:
    """Replace the tables on a page of the documentation."""
    page.put(text(results), path, BEGIN, END)


def _images(results: Results) -> str:
    rows = [
        (f"`{name}`", str(image["layers"]), f"{image['files']:,}", f"{image['size'] / 1e6:,.0f} MB")
        for name, image in results.images.items()
        if name in _compared(results)
    ]
    return page.table(("image", "layers", "files", "bytes"), rows)


def _claims(claims: list[Claim]) -> str:
    rows = [
        (claim.text, f"`{claim.image}`", claim.measured, "holds" if claim.holds else "**does not hold**")
        for claim in claims
    ]
    return page.table(("claim", "image", "measured (ours, theirs)", ""), rows, 4)


def _costs(results: Results, cached: str) -> str:
    groups = dict.fromkeys(
        (figure.image, figure.source, figure.tool, figure.compression)
        for figure in sorted(results.select(cached=cached), key=_order(results))
        if figure.image in _compared(results)
    )
    rows = []
    for image, source, tool, compression in groups:
        found = results.select(image=image, source=source, tool=tool, compression=compression, cached=cached)
        rows.append(
            (
                f"`{image}`",
                _SOURCES[source],
                _TOOLS[tool],
                compression,
                f"{statistics.median(figure.wall for figure in found):.2f} s",
                f"{statistics.median(figure.cpu for figure in found):.2f} s",
                f"{statistics.median(figure.daemon_cpu for figure in found):.2f} s" if source == "docker" else "",
                f"{max(figure.peak for figure in found) / 1e6:.0f} MB",
                f"{statistics.median(figure.size for figure in found) / 1e6:.1f} MB",
            )
        )
    return page.table(("image", "from", "by", "", "wall", "CPU", "dockerd's CPU", "memory", "file"), rows, 4)


def _compared(results: Results) -> set[str]:
    """Images that were converted by others too, or with a new top layer, and not only to see growth."""
    return {
        figure.image for figure in results.figures if figure.tool != "hpcbinder" or figure.cached == "all but the top"
    }


def _order(results: Results) -> Callable[[Figure], tuple[int, bool, int, int, str]]:
    images, sources, tools = list(results.images), list(_SOURCES), list(_TOOLS)

    def key(figure: Figure) -> tuple[int, bool, int, int, str]:
        source = figure.source
        return (
            images.index(figure.image),
            source in ("docker", "podman"),
            sources.index(source) if source != "tree" else 0,
            tools.index(figure.tool),
            figure.compression,
        )

    return key


def _growth(results: Results) -> str:
    rows = []
    for series in ("files", "bytes"):
        times = dict(points(results, series, lambda figure: figure.cpu))
        walls = dict(points(results, series, lambda figure: figure.wall))
        peaks = dict(points(results, series, lambda figure: figure.peak))
        for number in times:
            what = f"{number:,.0f} files" if series == "files" else f"{number:,.0f} MB in 200 files"
            rows.append((what, f"{walls[number]:.2f} s", f"{times[number]:.2f} s", f"{peaks[number] / 1e6:.0f} MB"))
    table = page.table(("one layer of", "wall", "CPU", "memory"), rows)
    found = points(results, "files", lambda figure: figure.peak)
    if len(found) >= 2:
        (few, least), *more = found
        each = max((peak - least) / (files - few) for files, peak in more)
        start, million = least - few * each, least + (1e6 - few) * each
        table += (
            f"\n\nMemory grows by at most {each / 1e3:.2f} kB a file from {start / 1e6:.0f} MB; a layer of 1,000,000 "
            f"files would take {million / 1e6:,.0f} MB."
        )
    return table


def _starts(results: Results) -> str:
    rows = []
    for start in results.starts:
        cells = [f"{value:.3f} s" for walls in (start.walls, start.cold) for value in _least_and_middle(walls)]
        rows.append((f"SIF by {_TOOLS[start.tool]}", start.compression, *cells, f"{start.size / 1e6:.1f} MB"))
    head = ("", "", "warm, least", "median", "file not in the page cache, least", "median", "file")
    return page.table(head, rows, 2)


def _least_and_middle(walls: list[float]) -> tuple[float, float]:
    return min(walls), statistics.median(walls)


if __name__ == "__main__":
    found = Results.read(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        put(found, Path(sys.argv[2]))
    else:
        print(text(found), end="")

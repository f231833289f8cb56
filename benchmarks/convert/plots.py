"""Plots of a run. Needs matplotlib (the extra `bench`).

python -m benchmarks.convert.plots RESULTS.json FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.convert.claims import OURS, THEIRS, Line, points
from benchmarks.convert.figures import GZIP, ZSTD, Figure, Results, cpu

_BLUE, _LIGHT, _GREY, _RED = "#1f6fb4", "#7db7e0", "#9a9a9a", "#c8553d"


def draw(results: Results, folder: Path) -> list[Path]:
    """Write all plots.

    Returns:
        The files.

    Raises:
        ImportError: There is no matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {
            "svg.fonttype": "path",
            "svg.hashsalt": "hpcbinder",
            "font.size": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 12,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "legend.frameon": False,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    done = []
    for name, plot in (("convert-cpu", _compared), ("convert-growth", _growth)):
        figure = plot(results)
        if figure is not None:
            path = folder / f"{name}.svg"
            figure.savefig(path, metadata={"Date": None}, bbox_inches="tight", facecolor="white")
            done.append(path)
    return done


def _compared(results: Results) -> Any:
    """CPU seconds of each way to a file, a group of bars for an image."""
    from matplotlib import pyplot

    ways: list[tuple[str, str, dict[str, str]]] = [
        ("hpcbinder convert, zstd", _LIGHT, {**OURS, "compression": ZSTD}),
        ("hpcbinder convert, gzip", _BLUE, {**OURS, "compression": GZIP}),
        ("mksquashfs of the unpacked tree, gzip", _GREY, {"tool": "mksquashfs", "compression": GZIP}),
        ("apptainer build, gzip (its default)", _RED, THEIRS),
    ]
    images = list(dict.fromkeys(figure.image for figure in results.select(**THEIRS)))
    if not images:
        return None
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 1.25 * len(images)))
    height = 0.8 / len(ways)
    for number, (label, color, values) in enumerate(ways):
        seconds = [results.middle(cpu, image=image, **values) or 0.0 for image in images]
        places = [row + (number - (len(ways) - 1) / 2) * height for row in range(len(images))]
        bars = axes.barh(places, seconds, height * 0.92, color=color, label=label)
        axes.bar_label(bars, [f"{value:.1f} s" if value else "" for value in seconds], padding=3, fontsize=9.5)
    axes.set_yticks(range(len(images)), [_named(results, image) for image in images])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("CPU seconds, all processes (less is better)")
    axes.set_title("From an OCI layout to a file for the cluster, nothing cached", pad=12)
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.55 / len(images)), ncols=2, fontsize=9.5)
    return figure


def _named(results: Results, image: str) -> str:
    found = results.images[image]
    name = image.partition("-")[0]
    return f"{name}\n{found['size'] / 1e6:,.0f} MB\n{found['files']:,} files"


def _growth(results: Results) -> Any:
    """Time and memory against files and bytes, with the fitted lines."""
    from matplotlib import pyplot

    kinds: list[tuple[str, str, float, Callable[[Figure], float], str, float]] = [
        ("files", "thousand files in one layer", 1e3, cpu, "CPU seconds", 1.0),
        ("bytes", "GB in 200 files of one layer", 1e3, cpu, "CPU seconds", 1.0),
        ("files", "thousand files in one layer", 1e3, lambda each: each.peak, "peak memory, MB", 1e6),
        ("bytes", "GB in 200 files of one layer", 1e3, lambda each: each.peak, "peak memory, MB", 1e6),
    ]
    if any(len(points(results, series, cpu)) < 3 for series in ("files", "bytes")):
        return None
    figure, grid = pyplot.subplots(2, 2, figsize=(9, 6.4), sharex="col", layout="constrained")
    for axes, (series, label, unit, of, name, scale) in zip(grid.flat, kinds, strict=True):
        found = [(x / unit, y / scale) for x, y in points(results, series, of)]
        line = Line.through(found)
        end = found[-1][0] * 1.05
        axes.plot([0, end], [line.intercept, line.intercept + line.slope * end], color=_LIGHT, linewidth=2, zorder=1)
        axes.scatter(*zip(*found, strict=True), color=_BLUE, s=36, zorder=2)
        axes.set_xlim(0, end)
        axes.set_ylim(0, max(y for _, y in found) * 1.25)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_ylabel(name)
        if axes in grid[1]:
            axes.set_xlabel(label)
            axes.axhline(300, color=_RED, linewidth=1, linestyle="--")
            axes.set_ylim(0, max(330.0, max(y for _, y in found) * 1.15))
            axes.text(end * 0.01, 305, "300 MB", color=_RED, fontsize=9.5)
        else:
            per = f"{line.slope:.3f} s per thousand files" if series == "files" else f"{line.slope:.1f} s per GB"
            axes.set_title(f"{per}, R² = {line.fit:.4f}")
    figure.suptitle("hpcbinder convert, gzip, nothing cached", x=0.02, ha="left", fontweight="bold")
    return figure


if __name__ == "__main__":
    for written in draw(Results.read(Path(sys.argv[1])), Path(sys.argv[2])):
        print(written)

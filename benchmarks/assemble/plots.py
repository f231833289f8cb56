"""The plot of a run. Needs matplotlib (the extra `bench`).

python -m benchmarks.assemble.plots RESULTS.json FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.assemble.figures import SEEN, UNSEEN, Results
from benchmarks.convert.claims import Line

BLUE, LIGHT, GREY = "#1f6fb4", "#7db7e0", "#9a9a9a"

_SERIES = (
    (UNSEEN, "uv", "uv pip install, bytecode", GREY),
    (UNSEEN, "hpcbinder", "hpcbinder, no package seen", BLUE),
    (SEEN, "merge", "hpcbinder, all packages seen", LIGHT),
)


def draw(results: Results, folder: Path) -> list[Path]:
    """Write it: wall time against files, for each way.

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
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "legend.frameon": False,
        }
    )
    from matplotlib import pyplot

    # uv's environment has the same files, which were counted in ours.
    files = {figure.packages: figure.files for figure in results.select(part=UNSEEN, tool="hpcbinder")}
    if len(files) < 3:
        return []
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for part, tool, label, color in _SERIES:
        points = sorted(
            (files[each.packages] / 1e3, each.wall)
            for each in results.select(part=part, tool=tool)
            if each.packages in files
        )
        if len(points) < 3:
            continue
        line = Line.through(points)
        end = points[-1][0] * 1.05
        axes.plot([0, end], [line.intercept, line.intercept + line.slope * end], color=color, linewidth=1.5, zorder=1)
        axes.scatter(*zip(*points, strict=True), color=color, s=36, zorder=2, label=f"{label} (R² {line.fit:.3f})")
    tops: dict[int, float] = {}
    for each in results.select(part=UNSEEN):
        tops[each.packages] = max(each.wall, tops.get(each.packages, 0.0))
    for packages, count in files.items():
        place = (count / 1e3, tops[packages])
        text = f"{packages} packages"
        axes.annotate(text, place, xytext=(0, 9), textcoords="offset points", fontsize=9, ha="right", color=GREY)
    axes.set_xlim(0)
    axes.set_ylim(0)
    axes.set_xlabel("thousand files, bytecode included")
    axes.set_ylabel("seconds (less is better)")
    axes.set_title("From a lock to an environment")
    axes.legend(fontsize=9.5)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "assemble-growth.svg"
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight", facecolor="white")
    return [path]


if __name__ == "__main__":
    for written in draw(Results.read(Path(sys.argv[1])), Path(sys.argv[2])):
        print(written)

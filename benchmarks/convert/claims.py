"""What is claimed, and whether the figures of a run bear it out."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.convert.figures import GZIP, ZSTD, Figure, Results, cpu
from benchmarks.convert.images import FILES

OURS = {"tool": "hpcbinder", "source": "oci", "cached": "nothing"}
THEIRS = {"tool": "apptainer", "source": "oci", "cached": "nothing"}
ALMOST = 1.05
"""Two times that differ by less are the same: so much the same command varies on a quiet machine."""


@dataclass(frozen=True)
class Claim:
    """One claim about one image.

    Attributes:
        text: The claim.
        image: About which image.
        measured: The figure, for a person.
        holds: Whether the figure bears it out.
    """

    text: str
    image: str
    measured: str
    holds: bool


@dataclass(frozen=True)
class Line:
    """A straight line through points, by least squares.

    Attributes:
        slope: Per unit of x.
        intercept: At 0.
        fit: The coefficient of determination, R².
    """

    slope: float
    intercept: float
    fit: float

    @classmethod
    def through(cls, points: list[tuple[float, float]]) -> Line:
        """Fit it to (x, y)."""
        xs, ys = zip(*points, strict=True)
        slope, intercept = statistics.linear_regression(xs, ys)
        return cls(slope, intercept, statistics.correlation(xs, ys) ** 2)


def judge(results: Results) -> list[Claim]:
    """All claims for which there are figures."""
    images = list(dict.fromkeys(figure.image for figure in results.select(tool="apptainer", source="oci")))
    found: list[Claim | None] = []
    for image in images:
        found += [
            _less(results, image, GZIP, 10),
            _less(results, image, ZSTD, 20),
            _size(results, image),
        ]
    for image in dict.fromkeys(figure.image for figure in results.select(tool="mksquashfs")):
        for compression in (GZIP, ZSTD):
            for source, what in (
                ("tar", "from uncompressed layers"),
                ("oci", "from gzip layers, which are undone first"),
            ):
                found += [
                    _not_slower(results, image, compression, source, f"CPU time {what}", cpu),
                    _not_slower(results, image, compression, source, f"wall time {what}", lambda figure: figure.wall),
                ]
    for source, what in (("docker", "Docker's storage"), ("podman", "rootless podman's storage")):
        for image in dict.fromkeys(figure.image for figure in results.select(source=source)):
            found.append(_storage(results, image, source, what))
    for image in dict.fromkeys(figure.image for figure in results.select(cached="all but the top")):
        found += _top(results, image)
    found += [_memory(results, f"files-{FILES[-1]}", "at 200,000 files"), *_growth(results)]
    found += [_start(results, compression) for compression in (GZIP, ZSTD)]
    return [claim for claim in found if claim is not None]


def points(results: Results, series: str, of: Callable[[Figure], float]) -> list[tuple[float, float]]:
    """A series of images (`files` or `bytes`) as (number in the name, median of a figure)."""
    found = []
    for image in dict.fromkeys(figure.image for figure in results.figures):
        name, _, number = image.partition("-")
        if name == series and number:
            value = results.middle(of, image=image, compression=GZIP, **OURS)
            if value is not None:
                found.append((float(number), value))
    return sorted(found)


def _less(results: Results, image: str, compression: str, factor: int) -> Claim | None:
    ours = results.middle(cpu, image=image, compression=compression, **OURS)
    theirs = results.middle(cpu, image=image, **THEIRS)
    if ours is None or theirs is None:
        return None
    text = f"{compression}: at least {factor}× less CPU time than `apptainer build` with its defaults"
    return Claim(text, image, f"{theirs / ours:.1f}× ({ours:.1f} s, {theirs:.1f} s)", theirs >= factor * ours)


def _size(results: Results, image: str) -> Claim | None:
    ours = results.middle(lambda figure: figure.size, image=image, compression=GZIP, **OURS)
    theirs = results.middle(lambda figure: figure.size, image=image, **THEIRS)
    if ours is None or theirs is None:
        return None
    measured = f"{ours / theirs:.3f} ({ours / 1e6:.1f} MB, {theirs / 1e6:.1f} MB)"
    return Claim("gzip: the file is not larger than Apptainer's", image, measured, ours <= theirs)


def _not_slower(
    results: Results, image: str, compression: str, source: str, what: str, of: Callable[[Figure], float]
) -> Claim | None:
    ours = results.middle(of, image=image, compression=compression, **{**OURS, "source": source})
    theirs = results.middle(of, image=image, compression=compression, tool="mksquashfs")
    if ours is None or theirs is None:
        return None
    text = f"{compression}: {what}, not above mksquashfs' at the same level on the unpacked tree"
    return Claim(text, image, f"{ours / theirs:.2f} ({ours:.1f} s, {theirs:.1f} s)", ours <= ALMOST * theirs)


def _storage(results: Results, image: str, source: str, what: str) -> Claim | None:
    ours = results.middle(cpu, image=image, source=source, tool="hpcbinder")
    theirs = results.middle(cpu, image=image, source=source, tool="apptainer")
    if ours is None or theirs is None:
        return None
    text = f"from {what}: at least 10× less CPU time than `apptainer build`, daemons' included"
    return Claim(text, image, f"{theirs / ours:.1f}× ({ours:.1f} s, {theirs:.1f} s)", theirs >= 10 * ours)


def _top(results: Results, image: str) -> list[Claim]:
    ours = results.middle(lambda figure: figure.wall, image=image, tool="hpcbinder", cached="all but the top")
    theirs = results.middle(lambda figure: figure.wall, image=image, **THEIRS)  # it keeps nothing between two builds
    if ours is None:
        return []
    text = "all layers but a small top one cached: {} (the whole command, wall)"
    claims = []
    if theirs is not None:
        faster = text.format("at least 50× faster than `apptainer build`")
        claims.append(Claim(faster, image, f"{theirs / ours:.0f}× ({ours:.2f} s, {theirs:.1f} s)", theirs >= 50 * ours))
    if image == "server":
        claims.append(Claim(text.format("at most 1.0 s for 400 MB"), image, f"{ours:.2f} s", ours <= 1.0))
    return claims


def _memory(results: Results, image: str, what: str) -> Claim | None:
    peaks = [figure.peak for figure in results.select(image=image, tool="hpcbinder", source="oci")]
    if not peaks:
        return None
    return Claim(f"at most 300 MB of memory {what}", image, f"{max(peaks) / 1e6:.0f} MB", max(peaks) <= 300e6)


def _growth(results: Results) -> list[Claim | None]:
    found: list[Claim | None] = []
    for series, unit in (("files", "1,000 files"), ("bytes", "GB")):
        times = points(results, series, cpu)
        if len(times) >= 3:
            line = Line.through(times)
            measured = f"{line.slope * 1000:.2f} s per {unit}, R² {line.fit:.4f}"
            found.append(
                Claim(f"CPU time is linear in {series} (R² at least 0.99)", series, measured, line.fit >= 0.99)
            )
    peaks = [peak for _, peak in points(results, "bytes", lambda figure: figure.peak)]
    if peaks:
        measured = f"{min(peaks) / 1e6:.0f} to {max(peaks) / 1e6:.0f} MB"
        found.append(Claim("at most 300 MB of memory whatever the bytes", "bytes", measured, max(peaks) <= 300e6))
    return found


def _start(results: Results, compression: str) -> Claim | None:
    ours, theirs = results.start("hpcbinder", compression), results.start("apptainer", compression)
    if ours is None or theirs is None:
        return None
    mine, other = min(ours.walls), min(theirs.walls)
    measured = f"{mine / other:.2f} ({mine:.3f} s, {other:.3f} s)"
    text = f"{compression}: Python with numpy starts not slower than from Apptainer's own SIF (the least of the runs)"
    return Claim(text, "demo", measured, mine <= ALMOST * other)

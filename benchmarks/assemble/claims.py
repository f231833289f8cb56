"""What is claimed, and whether the figures of a run bear it out."""

from __future__ import annotations

from benchmarks.assemble.courses import NO_REFLINKS
from benchmarks.assemble.figures import SEEN, UNSEEN, Results, wall
from benchmarks.convert.claims import Claim, Line

_SECONDS, _FASTER, _SLOWER, _MEMORY, _SHARE = 5.0, 30.0, 1.5, 300e6, 0.25


def judge(results: Results) -> list[Claim]:
    """All claims for which there are figures."""
    found = [*_seen(results), *_unseen(results), *_growth(results), *_memory(results), *_courses(results)]
    for equal in results.equal:
        text = "the tree that `uv pip install` leaves; it works under Apptainer"
        measured = f"{equal.packages} packages, {equal.files:,} files, {len(equal.different)} differences"
        found.append(Claim(text, equal.name, measured, equal.holds))
    return found


def _seen(results: Results) -> list[Claim]:
    ours = results.middle(wall, part=SEEN, tool="hpcbinder")
    if ours is None:
        return []
    found = [
        Claim(
            "all packages seen: from the link to the registered kernel in at most 5 s",
            "40 packages",
            f"{ours:.2f} s",
            ours <= _SECONDS,
        )
    ]
    docker, sif = (results.middle(wall, part=SEEN, tool=tool) for tool in ("docker", "apptainer"))
    if docker is not None and sif is not None:
        text = "at least 30× faster than Docker's build and `apptainer build` of the same lock, caches warm"
        measured = f"{(docker + sif) / ours:.0f}× ({ours:.2f} s; {docker:.1f} s and {sif:.1f} s)"
        found.append(Claim(text, "40 packages", measured, docker + sif >= _FASTER * ours))
    return found


def _counts(results: Results) -> list[int]:
    return sorted({figure.packages for figure in results.select(part=UNSEEN)})


def _unseen(results: Results) -> list[Claim]:
    found = []
    for count in _counts(results):
        ours, theirs = (results.middle(wall, part=UNSEEN, tool=tool, packages=count) for tool in ("hpcbinder", "uv"))
        merge = results.middle(lambda figure: figure.merge, part=UNSEEN, tool="hpcbinder", packages=count)
        if ours is None or theirs is None or merge is None:
            continue
        text = "no package seen: at most 1.5× the wall time of `uv pip install` with bytecode, plus the merge"
        measured = f"{(ours - merge) / theirs:.2f}× ({ours:.1f} s, of it {merge:.2f} s the merge; {theirs:.1f} s)"
        found.append(Claim(text, f"{count} packages", measured, ours <= _SLOWER * theirs + merge))
    return found


def _growth(results: Results) -> list[Claim]:
    found = []
    for part, tool, what in ((SEEN, "merge", "merging what was seen"), (UNSEEN, "hpcbinder", "what was not seen")):
        figures = results.select(part=part, tool=tool)
        points = [(float(figure.files), figure.cpu) for figure in figures if figure.files]
        if len({x for x, _ in points}) >= 3:
            line = Line.through(points)
            measured = f"{line.slope * 1000:.2f} s per 1,000 files, R² {line.fit:.3f}"
            found.append(
                Claim(
                    f"{what}: CPU time is linear in the files (R² at least 0.95)", "growth", measured, line.fit >= 0.95
                )
            )
    return found


def _memory(results: Results) -> list[Claim]:
    found = []
    link = [figure.peak for figure in results.select(part=SEEN, tool="hpcbinder")]
    if link:
        text = "at most 300 MB of memory, all processes of the build together"
        found.append(Claim(text, "40 packages", f"{max(link) / 1e6:.0f} MB", max(link) <= _MEMORY))
    for count in _counts(results):
        own = [figure.own for figure in results.select(part=UNSEEN, tool="hpcbinder", packages=count)]
        if own:
            text = "at most 300 MB of memory in the process that squashes and merges"
            found.append(Claim(text, f"{count} packages", f"{max(own) / 1e6:.0f} MB", max(own) <= _MEMORY))
    return found


def _courses(results: Results) -> list[Claim]:
    found = []
    for each in results.courses:
        # Without reflinks each SIF is a copy of its own, and only the layers are shared.
        copied = each.file_system == NO_REFLINKS
        taken, what = (each.layers, "the layers of a store") if copied else (each.used, "a store")
        text = f"courses that share most packages: {what} with all of them takes at most a quarter of their SIFs"
        measured = f"{taken / each.alone:.2f} ({taken / 1e9:.1f} GB; {each.alone / 1e9:.1f} GB)"
        found.append(Claim(text, f"{each.images} courses", measured, taken <= _SHARE * each.alone))
    return found

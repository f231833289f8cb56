"""Images of squashed packages against engines and `uv pip install`, in the same run.

    python -m benchmarks.assemble [--quick] [--part PART]… [--rounds N] [--out FOLDER] [--scratch FOLDER] [--keep]
                                  [--docs]

| part | what |
|---|---|
| `seen` | a repository that nobody has seen, all of whose packages were: from the link to the registered kernel, against a Docker build and `apptainer build` of the same lock with warm caches |
| `unseen` | 10, 100 and 400 packages that nobody has seen, against `uv pip install` of the same lock; and again, seen |
| `courses` | 50 repositories that share most packages: what a store takes |
| `check` | that an environment is the tree `uv pip install` leaves, and works under Apptainer (`equivalence`) |

Prints tables, and for each claim whether the figures of this run bear it out; writes the same, all figures and the plot
to a folder. Packages come from the index of the configuration. A whole run takes about three quarters of an hour on two
cores, most of it downloads and the imports of `check`; `--quick` (10 and 40 packages, 5 courses, one environment) ten
minutes. With `--keep` the parts and environments that are not asked for stay as the last run in the folder found them,
so that `check`, which a busy machine does not change, need not be part of a quiet hour. It wants 20 GB of disk for a while. As root it borrows Apptainer, a Docker daemon and an ordinary user of the
tests' rig, and an XFS of its own where mkfs.xfs is; what cannot be had is said and left out.
"""  # noqa: E501

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.assemble import plots, report
from benchmarks.assemble.claims import judge
from benchmarks.assemble.courses import measure_courses
from benchmarks.assemble.equivalence import check
from benchmarks.assemble.figures import Results
from benchmarks.assemble.measures import Measures
from benchmarks.assemble.packages import ENVIRONMENTS
from benchmarks.convert.__main__ import machine
from benchmarks.convert.images import ROOT
from benchmarks.convert.tools import Tools
from tests.rig import Rig

PARTS = ("seen", "unseen", "courses", "check")
COUNTS, COURSES = (10, 100, 400), 50


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.assemble")
    parser.add_argument("--quick", action="store_true", help="fewer packages, courses and environments")
    parser.add_argument("--part", action="append", choices=PARTS, help="measure these (default: all)")
    parser.add_argument("--count", action="append", type=int, help="so many packages (default: 10, 100, 400)")
    parser.add_argument("--compression", default="zstd:3", help="of packages that nobody has seen (default: zstd:3)")
    parser.add_argument("--courses", type=int, help="so many (default: 50)")
    parser.add_argument(
        "--environment", action="append", choices=tuple(ENVIRONMENTS), help="check these (default: all)"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmark-results/assemble"))
    parser.add_argument("--scratch", type=Path, help="on a disk with 20 GB (default: the rig's folder)")
    parser.add_argument("--keep", action="store_true", help="what is not measured now is the last run's")
    parser.add_argument("--docs", action="store_true", help="put tables and the plot into docs/ too")
    options = parser.parse_args()
    begin = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        rig = Rig()
        place = (options.scratch or rig.folder).absolute()
        place.mkdir(parents=True, exist_ok=True)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="assemble-", dir=place)))
        scratch.chmod(0o755)
        stack.callback(rig.close)
        results = Results(machine(Tools(scratch, rig, stack), options.rounds))
        results.machine["compression"] = options.compression
        parts = options.part or PARTS
        names = options.environment or (["data"] if options.quick else list(ENVIRONMENTS))
        if options.keep and (options.out / "results.json").exists():
            results.keep(Results.read(options.out / "results.json"), parts, names)
        measures = Measures(scratch, rig, results, options.rounds)
        counts = options.count or ((10, 40) if options.quick else COUNTS)
        steps: dict[str, Callable[[], object]] = {
            "seen": measures.seen,
            "unseen": lambda: measures.unseen(counts, options.compression),
            "courses": lambda: results.courses.append(
                measure_courses(options.courses or (5 if options.quick else COURSES), scratch)
            ),
            "check": lambda: results.equal.extend(check(name, scratch, rig) for name in names),
        }
        for part in PARTS:
            if part in parts:
                steps[part]()
                results.machine["seconds"] = round(time.monotonic() - begin)
                results.write(options.out / "results.json", judge(results))  # so that what ends early is not lost
    show(results, options.out, docs=options.docs)


def show(results: Results, out: Path, *, docs: bool) -> None:
    """Print the tables, and write them and the plot."""
    tables = report.text(results)
    (out / "results.md").write_text(tables)
    print("\n" + tables)
    if docs:
        report.put(results, ROOT / "docs/performance-assemble.md")
    for folder in (out, *([ROOT / "docs/images"] if docs else [])):
        try:
            plots.draw(results, folder)
        except ImportError:
            print("no plot: matplotlib is not here (the extra `bench` has it)")
            break
    print(f"{results.machine['seconds']} s; everything is in {out}")


if __name__ == "__main__":
    main()

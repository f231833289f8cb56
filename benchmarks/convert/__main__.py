"""`hpcbinder convert` against `apptainer build` and mksquashfs, on the same images, in the same run.

    python -m benchmarks.convert [--quick] [--image NAME]… [--part PART]… [--rounds N] [--out FOLDER] [--cache FOLDER]
                                 [--docs]

Prints tables, and for each claim whether the figures of this run bear it out; writes the same, all figures and the
plots to a folder. CPU seconds of all processes are the steadier figure; wall seconds and memory are beside them.

The first run makes the images (see `images`): some minutes, and 6 GB of the cache folder, which the trees unpacked for
mksquashfs need most of. Another 3 GB are needed while it runs. A whole run takes a quarter of an hour on two cores,
`--quick` four minutes. What is not on PATH (`apptainer`, `mksquashfs`, `umoci`, `skopeo`, `docker`, `podman`) is said
and left out; Apptainer, a daemon and an ordinary user are borrowed of the tests' rig where there are none. As root the
figures from OCI layouts and from Docker are root's; podman and the starts are always an ordinary user's.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import os
import platform
import pwd
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.convert import plots, report
from benchmarks.convert.claims import judge
from benchmarks.convert.figures import Results
from benchmarks.convert.images import FILES, MEGABYTES, ROOT, Images
from benchmarks.convert.measures import STARTED, Measures
from benchmarks.convert.tools import Tools
from tests.rig import Rig

PARTS = ("layout", "docker", "podman", "top", "growth", "start")
BIG = f"files-{FILES[-1]}"


def machine(tools: Tools, rounds: int) -> dict[str, object]:
    """What a reader of the figures wants to know of where they are from."""
    return {
        "date": time.strftime("%-d %B %Y"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "user": "root" if os.geteuid() == 0 else "an ordinary user",
        "programs": tools.versions(),
        "rounds": rounds,
    }


def main() -> None:
    """Measure and print."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".cache")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convert")
    parser.add_argument("--quick", action="store_true", help="the image of 400 MB alone, and a shorter growth")
    parser.add_argument("--image", action="append", help="convert these from their layouts (default: all three)")
    parser.add_argument("--part", action="append", choices=PARTS, help="measure these (default: all)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--cache", type=Path, default=cache_home / "hpcbinder-benchmarks")
    parser.add_argument("--docs", action="store_true", help="put tables and plots into docs/ too")
    options = parser.parse_args()
    quick = options.quick
    names = options.image or (["server"] if quick else ["demo", "science", BIG])
    parts = options.part or [part for part in PARTS if not quick or part != "start"]
    small = options.image[0] if options.image else "server"
    begin = time.monotonic()
    compileall.compile_dir(ROOT / "hpcbinder", quiet=2)  # as an installer leaves it
    options.out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        cache = options.cache.absolute()
        cache.mkdir(parents=True, exist_ok=True)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=cache)))
        tools = Tools(scratch, Rig(), stack)
        images, results = Images(cache, tools), Results(machine(tools, options.rounds))
        measures = Measures(tools, images, scratch, results, options.rounds)
        steps: dict[str, Callable[[], None]] = {
            "layout": lambda: measures.nothing_cached(names),
            "docker": lambda: measures.from_docker(small),
            "podman": lambda: measures.from_podman(small),
            "top": lambda: measures.new_top(options.image or (["server"] if quick else ["server", STARTED])),
            "growth": lambda: measures.growth(*((FILES[2], MEGABYTES[3]) if quick else (FILES[-1], MEGABYTES[-1]))),
            "start": measures.starts,
        }
        for part in PARTS:
            if part in parts:
                steps[part]()
                results.images = images.known([figure.image for figure in results.figures])
                results.machine["seconds"] = round(time.monotonic() - begin)
                results.write(options.out / "results.json", judge(results))  # so that what ends early is not lost
    show(results, options.out, docs=options.docs)


def show(results: Results, out: Path, *, docs: bool) -> None:
    """Print the tables, and write them and the plots."""
    tables = report.text(results)
    (out / "results.md").write_text(tables)
    print("\n" + tables)
    if docs:
        report.put(results, ROOT / "docs/performance.md")
    for folder in (out, *([ROOT / "docs/images"] if docs else [])):
        try:
            plots.draw(results, folder)
        except ImportError:
            print("no plots: matplotlib is not here (the extra `bench` has it)")
            break
    print(f"{results.machine['seconds']} s; everything is in {out}")


if __name__ == "__main__":
    main()

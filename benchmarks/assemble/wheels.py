"""Wheels nobody has seen: squashed one by one and merged, against `uv pip install` of the same lock with bytecode.

    python benchmarks/assemble/wheels.py [--count 10 --count 40 …] [--check] [PACKAGE…]

Each way has empty caches and the same index. `--check` compares what both left at one prefix, file by file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from installed_tree import PYTHON, Tree, differences, uv_install

from hpcbinder.config import load
from hpcbinder.lock import Resolver
from hpcbinder.model import Lock, Wanted
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Options, merge
from hpcbinder.wheels import Target, WheelStore
from memory import peak

SCIENCE = Path(__file__).with_name("science.txt")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, action="append", help="so many of the packages")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--compression", default="gzip:6")
    parser.add_argument("--ours", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("packages", nargs="*")
    arguments = parser.parse_args()
    if arguments.ours:
        print(
            json.dumps(
                squash(arguments.packages, Path(arguments.ours[0]), Path(arguments.ours[1]), arguments.compression)
            )
        )
        return
    names = arguments.packages or SCIENCE.read_text().split()
    print("                            ours:                             uv:         ours / uv:")
    print(" wheels   files     MB     wall    cpu  again  merge   MiB    wall    cpu   wall   cpu", flush=True)
    for count in arguments.count or [len(names)]:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as name:
            one(names[:count], Path(name), arguments.check, arguments.compression)


def one(names: list[str], scratch: Path, check: bool, compression: str) -> None:
    """One row."""
    prefix = scratch / "env"
    # Versions are found before either way begins.
    lock = resolve(names, scratch)
    command = [sys.executable, __file__, "--compression", compression, "--ours", str(scratch), str(prefix), *names]
    ours = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    site = load().site
    tree, theirs = uv_install(lock, prefix, site, scratch / "cache")
    print(
        f"{len(lock.packages):>7}{len(tree.files):>8}{ours['size'] / 1e6:>7.0f}{ours['wall']:>9.1f}{ours['cpu']:>7.1f}"
        f"{ours['again']:>7.2f}{ours['merge']:>7.2f}{ours['memory']:>6.0f}{theirs['wall']:>8.1f}{theirs['cpu']:>7.1f}"
        f"{ours['wall'] / theirs['wall']:>7.2f}{ours['cpu'] / theirs['cpu']:>6.2f}",
        flush=True,
    )
    if check:
        found = differences(Tree.of_image(scratch / "merged.squashfs", str(prefix)), tree)
        print("\n".join(found[:100]) or f"all {len(tree.files)} files are alike", flush=True)
        sys.exit(bool(found))


def resolve(names: list[str], scratch: Path) -> Lock:
    wanted = Wanted(
        ecosystem="pypi",
        requirements=tuple(names),
        constraints=(),
        elsewhere=(),
        prereleases=False,
        python=PYTHON,
        architecture="amd64" if os.uname().machine == "x86_64" else "arm64",
        suite="bookworm",
        source="",
    )
    return Resolver(scratch, load().site, refresh=False, reporter=Silent())(wanted)


def squash(names: list[str], scratch: Path, prefix: Path, compression: str) -> dict[str, float]:
    """Our way, in a process of its own so that its memory can be told."""
    lock = resolve(names, scratch)
    target = Target(str(prefix), PYTHON, f"{prefix}/bin/python", "amd64", lock.platform)
    store = WheelStore(scratch / "wheels", load().site, Options.parse(compression), Silent())
    begin, before = time.monotonic(), cpu()
    layers = store.layers(lock, target, scratch=scratch)
    wall, spent = time.monotonic() - begin, cpu() - before
    begin = time.monotonic()
    store.layers(lock, target, scratch=scratch)
    again = time.monotonic() - begin
    begin = time.monotonic()
    with (scratch / "merged.squashfs").open("w+b") as file:
        size = merge(layers, file)
    # Of this process; what getrusage says of the compilers is what they were when they were forked from it.
    memory = peak() / 1024
    return {
        "wall": wall,
        "cpu": spent,
        "again": again,
        "merge": time.monotonic() - begin,
        "size": size,
        "memory": memory,
    }


def cpu() -> float:
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    main()

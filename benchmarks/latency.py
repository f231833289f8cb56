"""How long a kernel takes from its start to the first answer: native, in a SIF, and in a SIF as a job of Slurm.

    python -m benchmarks.latency [--rounds N] [--docs]

The same Python and the same ipykernel each time: natively out of a folder, and out of the image. In each round each of
the three is started once, one after the other, by the same front end (jupyter_client), as an ordinary user; measured
is the wall time until a cell's answer is there. Then the server's part of a launch: a person's copy of the repository
that is made, and one that is there. Medians, and their ratios to the native start. Files are in the page cache, and a
node is free: what a queue adds is the site's.

As root it borrows Apptainer, a Slurm of two nodes and an ordinary user of the tests' rig.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NAMES = {"native": "native", "sif": "in a SIF, here", "slurm": "in a SIF, as a job of Slurm on another node"}
SPACES = {"made": "the copy of the repository, made", "kept": "the copy of the repository, kept"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--docs", action="store_true", help="put the table into docs/slurm.md too")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        figures = measure(options.rounds, stack)
    text = table(figures, options.rounds)
    print(text)
    if options.docs:
        put(text, ROOT / "docs/slurm.md")


def measure(rounds: int, stack: contextlib.ExitStack) -> dict[str, list[float]]:
    """Seconds of every start, by `NAMES` and `SPACES`."""
    sys.path.insert(0, str(ROOT / "tests"))
    import small_image

    from hpcbinder import runtime
    from hpcbinder.config import Config, RuntimeConfig
    from hpcbinder.register import register_kernels
    from hpcbinder.scheduler import Resources
    from rig import Rig

    rig = Rig()
    stack.callback(rig.close)
    for part in ("apptainer", "slurm"):
        stack.enter_context(rig.borrowed(part))
    user = rig.user
    stack.callback(user.clean)
    user.knows(rig.slurm.hosts)
    place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latency-", dir=rig.folder)))
    place.chmod(0o755)
    make_image(small_image, place)
    hpcbinder = [sys.executable, "-m", "hpcbinder", "--store", place / "store", "convert", place / "image.squashfs"]
    subprocess.run([*hpcbinder, "--to", "sif", "-o", place / "image.sif"], check=True, stdout=subprocess.DEVNULL)

    whole = small_image.entry_of(place / "image.squashfs")
    # The image's first kernel is ipykernel; it has another one, for tests.
    image = dataclasses.replace(whole, formats={"sif": str(place / "image.sif")}, kernels=whole.kernels[:1])
    path = f"{rig.apptainer.bin}:/usr/bin:/bin"
    os.environ["PATH"] = f"{path}:{os.environ['PATH']}"
    settings = RuntimeConfig(name="apptainer")
    for name, job in (("sif", None), ("slurm", Resources(partition="debug", time="10", cpus=1))):
        register_kernels(image, config=Config(runtime=settings), prefix=place, name=name, job=job)
    packages = next((place / "native").glob("opt/env/lib/python3.*/site-packages"))
    native = place / "share/jupyter/kernels/native"
    native.mkdir()
    argv = [f"/usr/bin/python{small_image.PYTHON}", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "native", "language": "python", "env": {"PYTHONPATH": str(packages)}}
    (native / "kernel.json").write_text(json.dumps(spec))
    description = runtime.describe(image, settings, environ=os.environ)
    (place / "description.json").write_text(json.dumps(description))
    for file in place.glob("*.json"):
        file.chmod(0o644)
    environ = {**rig.slurm.environment, "PATH": path, "JUPYTER_PATH": str(place / "share/jupyter")}
    command = [sys.executable, __file__, "AS-THE-USER", str(rounds), str(place)]
    done = user.run(command, env=environ, timeout=1800)
    shutil.rmtree(place / "native")
    figures: dict[str, list[float]] = json.loads(done.stdout)
    return figures


def make_image(small_image: Any, place: Path) -> None:
    """`image.squashfs`, and its files in `native`; with bytecode of the standard library, as real images have it."""
    native = place / "native"
    small_image.make(place / "root", place / "plain.squashfs")
    library = native / small_image.STDLIB.relative_to("/")
    python = f"/usr/bin/python{small_image.PYTHON}"
    for command in (
        ["unsquashfs", "-quiet", "-no-progress", "-dest", native, place / "plain.squashfs"],
        [python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", library],
        ["mksquashfs", native, place / "image.squashfs", "-all-root", "-no-xattrs", "-quiet", "-no-progress"],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def as_the_user(rounds: int, place: Path) -> dict[str, list[float]]:
    """`measure`'s inner part."""
    from hpcbinder.runtime.launch.space import Space, prepare

    description = json.loads((place / "description.json").read_text())
    found: dict[str, list[float]] = {name: [] for name in (*NAMES, *SPACES)}
    for number in range(rounds + 1):
        seconds = {name: start(name) for name in NAMES}
        for name in SPACES:
            begun = time.perf_counter()
            prepare(Space("{home}/binder", "small", str(number)), description, environ=os.environ)
            seconds[name] = time.perf_counter() - begun
        if number:  # the first one warms up
            for name, taken in seconds.items():
                found[name].append(taken)
    return found


def start(kernel: str) -> float:
    """Seconds until a kernel has answered."""
    from jupyter_client.manager import KernelManager

    begun = time.perf_counter()
    manager = KernelManager(kernel_name=kernel)
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=300)
        reply = client.execute_interactive("1 + 1", timeout=300, output_hook=lambda _: None)
        seconds = time.perf_counter() - begun
        assert reply["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    return seconds


def table(figures: dict[str, list[float]], rounds: int) -> str:
    """Medians as a table in Markdown."""
    medians = {name: statistics.median(seconds) for name, seconds in figures.items()}
    lines = ["| start | median | least | most | ratio |", "|---|---:|---:|---:|---:|"]
    for name, label in {**NAMES, **SPACES}.items():
        seconds = figures[name]
        shown = (
            f"{value:.2f} s" if value >= 0.01 else "< 0.01 s" for value in (medians[name], min(seconds), max(seconds))
        )
        lines.append(f"| {label} | {' | '.join(shown)} | {medians[name] / medians['native']:.2f} |")
    load = os.getloadavg()[1]
    system = f"{os.cpu_count()} cores, load {load:.1f}"
    lines += ["", f"`python -m benchmarks.latency`, {time.strftime('%d %B %Y')}, {system}; {rounds} rounds."]
    return "\n".join(lines)


def put(text: str, page: Path) -> None:
    """Put the table where the page wants it."""
    whole = page.read_text()
    marks = "<!-- latency -->", "<!-- end of latency -->"
    assert all(whole.count(mark) == 1 for mark in marks), f"{page} has no place for the table"
    found = re.sub(rf"{marks[0]}.*{marks[1]}", lambda _: f"{marks[0]}\n{text}\n{marks[1]}", whole, flags=re.DOTALL)
    page.write_text(found)


if __name__ == "__main__":
    if sys.argv[1:2] == ["AS-THE-USER"]:
        print(json.dumps(as_the_user(int(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main()

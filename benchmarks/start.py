"""Start-up and planning, against repo2docker: CPU seconds of the whole command, the best of several runs.

`repo2docker --no-build --debug` is what comes nearest to a plan: it detects and renders the Dockerfile.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.executable).parent


def measure(command: list[str], cwd: Path, runs: int) -> tuple[float, float]:
    """Least CPU seconds (user and system, children included) and least wall seconds of a command."""
    best_cpu = best_wall = float("inf")
    for _ in range(runs):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "CI": "1"})
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: {done.stderr[-1000:]}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best_cpu, best_wall = min(best_cpu, cpu), min(best_wall, wall)
    return best_cpu, best_wall


def repository(folder: Path, files: int) -> Path:
    """A repository with that many small files in folders of 100."""
    folder.mkdir()
    (folder / "requirements.txt").write_text("numpy\n")
    for number in range(files - 1):
        if number % 100 == 0:
            (folder / f"d{number // 100}").mkdir()
        (folder / f"d{number // 100}" / f"f{number}.txt").write_text("x\n")
    return folder


def main() -> None:
    """Measure and print a table."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        small, large = repository(scratch / "small", 10), repository(scratch / "large", 20_000)
        ours, theirs = str(BIN / "hpcbinder"), str(BIN / "repo2docker")
        dry = [theirs, "--no-build", "--debug", "--user-id", "1000", "--user-name", "joe", "."]
        rows = [
            ("--help", [ours, "--help"], [theirs, "--help"], scratch, 7),
            ("plan, 10 files", [ours, "plan", "."], dry, small, 5),
            ("plan, 20,000 files", [ours, "plan", "."], dry, large, 3),
        ]
        print(f"{'':<20}{'ours cpu':>10}{'wall':>8}{'theirs cpu':>12}{'wall':>8}{'ratio':>8}")
        for label, our_command, their_command, cwd, runs in rows:
            cpu, wall = measure(our_command, cwd, runs)
            their_cpu, their_wall = measure(their_command, cwd, runs)
            line = f"{label:<20}{cpu:>9.3f}s{wall:>7.2f}s{their_cpu:>11.3f}s{their_wall:>7.2f}s"
            print(f"{line}{their_cpu / cpu:>7.1f}x")


if __name__ == "__main__":
    main()

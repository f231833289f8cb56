"""All inputs of the corpus, once: those to begin with, those that reach something, those that did harm."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CPU, (60, resource.RLIM_INFINITY))


def test_no_input_of_the_corpus_does_harm() -> None:
    """In a process that may take 2 GiB and a minute for all of them."""
    command = [sys.executable, "-m", "tests.fuzz", "replay"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=limited)
    assert done.returncode == 0, done.stderr[-4000:]
    counts = {
        name: int(count)
        for name, count in (line.removesuffix(" inputs").split(": ") for line in done.stdout.splitlines())
    }
    assert len(counts) >= 8 and all(counts.values())


def test_the_corpus_stays_small() -> None:
    assert sum(path.stat().st_size for path in Path(__file__).parent.glob("corpus/*/*")) < 300_000

"""``python -m tests.fuzz TARGET [--seconds N]``, ``replay``, ``seed``; see docs/development.md."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

from .mutate import MUTATORS

CORPUS = Path(__file__).parent / "corpus"
_MEMORY = 1024
"""Most MiB an input may take."""
_PATIENCE = 20
"""Most seconds."""


def main() -> int:
    """Do what the command line says; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="what a stranger may hand us, at random")
    parser.add_argument("target", choices=(*MUTATORS, "replay", "seed"))
    parser.add_argument("--seconds", type=int, default=60, help="how long to look for what is new (default: 60)")
    parser.add_argument("--work", type=Path, help="folder that keeps what reaches new code, from run to run")
    arguments = parser.parse_args()
    if arguments.target == "replay":
        return replay()
    if arguments.target == "seed":
        from .seeds import write_seeds

        write_seeds(CORPUS)
        return 0
    # libFuzzer ends the process it is in, and its temporary files would stay.
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        tempfile.tempdir = folder
        child = os.fork()
        if not child:
            fuzz(arguments.target, arguments.seconds, arguments.work or Path(folder) / "work")
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def replay() -> int:
    """Give each target all of its corpus; what is raised is a bug."""
    from .targets import TARGETS

    for name, target in TARGETS.items():
        inputs = sorted((CORPUS / name).iterdir())
        for path in inputs:
            try:
                target(path.read_bytes())
            except Exception as error:
                raise AssertionError(f"{name}: {path.name}") from error
        print(f"{name}: {len(inputs)} inputs", flush=True)
    return 0


def fuzz(name: str, seconds: int, work: Path) -> None:
    """Let libFuzzer look for inputs that do harm; they are left in the current folder, as `fuzz-TARGET-…`."""
    import atheris

    with atheris.instrument_imports(include=["hpcbinder"]):
        from .targets import TARGETS

    mutate = MUTATORS[name]

    def mutator(data: bytes, limit: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.3:
            return bytes(atheris.Mutate(data, limit))
        return mutate(data, chance)[:limit]

    work.mkdir(parents=True, exist_ok=True)
    options = {
        "max_total_time": seconds,
        "timeout": _PATIENCE,
        "rss_limit_mb": _MEMORY,
        "max_len": 1 << 16,
        "artifact_prefix": f"fuzz-{name}-",
        "print_final_stats": 1,
    }
    argv = [sys.argv[0], str(work), str(CORPUS / name), *(f"-{key}={value}" for key, value in options.items())]
    atheris.Setup(argv, TARGETS[name], custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())

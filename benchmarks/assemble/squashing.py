"""Our way from a lock to an environment, as a program, so that a process of its own can be measured.

python -m benchmarks.assemble.squashing LOCK.json PREFIX SCRATCH COMPRESSION    (prints JSON)
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from hpcbinder.config import load
from hpcbinder.lock import read_locks
from hpcbinder.progress import Silent
from hpcbinder.squashfs import Options, merge
from hpcbinder.wheels import Target, WheelStore
from tests.installed_tree import PYTHON
from tests.memory import peak


def main(lock_file: str, prefix: str, scratch: str, compression: str) -> None:
    """Squash all packages of a lock and merge them, with an empty store if SCRATCH has none."""
    (lock,) = read_locks(Path(lock_file))
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[lock.platform.partition("-")[0]]
    target = Target(prefix, PYTHON, f"{prefix}/bin/python", architecture, lock.platform)
    folder = Path(scratch)
    store = WheelStore(folder / "wheels", load().site, Options.parse(compression), Silent())
    layers = store.layers(lock, target, scratch=folder)
    begin = time.monotonic()
    with (folder / "merged.squashfs").open("w+b") as file:
        size = merge(layers, file)
    merged = time.monotonic() - begin
    print(json.dumps({"merge": merged, "size": size, "own": peak() * 1024}))


if __name__ == "__main__":
    main(*sys.argv[1:])

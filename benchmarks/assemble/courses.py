"""A store full of courses that share most of their packages, and what they would take one by one.

As root, where mkfs.xfs is, the store lies on an XFS of its own in a file: there the images' files share the blocks of
the layers, and what the file system says it has given away is what all of it takes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.assemble.figures import Courses
from benchmarks.assemble.packages import course
from benchmarks.environment import Repository
from hpcbinder.catalog import Catalog
from hpcbinder.statistics import statistics

NO_REFLINKS = "no reflinks"
"""The file system of a store whose files are copies."""
_ROOM = 64 << 30
"""Bytes that the file system of its own may have; the file that it is in has only what is written."""


def measure_courses(count: int, scratch: Path) -> Courses:
    """Build the images of some courses, one after the other.

    Args:
        scratch: Folder with room for their images, 250 MB each where nothing is shared.
    """
    environment = {**os.environ, "CI": "1", "HPCBINDER_BUILD_ENGINE": "none"}
    with _place(scratch) as (folder, file_system):
        nothing = _used(folder)
        (folder / "git").mkdir()
        program = [sys.executable, "-m", "hpcbinder", "--store", str(folder / "store")]
        (folder / "git" / "six.txt").write_text("six\n")
        # The base, which both ways need: without it nothing is to be compared.
        subprocess.run(
            [*program, "warm", str(folder / "git/six.txt"), "--base", "bookworm"], env=environment, check=True
        )
        before = _used(folder) - nothing
        walls = []
        for number in range(count):
            made = Repository(folder / "git", f"course-{number}")
            made.commit(list(course(number)))
            begin = time.monotonic()
            command = [*program, "build", made.url, "--no-register", "--format", "sif", "--json"]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
            walls.append(time.monotonic() - begin)
            print(f"{json.loads(done.stdout)['id']}: {walls[-1]:.1f} s", flush=True)
        found = statistics(Catalog(folder / "store"))
        used = _used(folder) - nothing
    return Courses(count, sum(found.formats.values()), found.layers, used, before, file_system, walls)


def _used(folder: Path) -> int:
    """Bytes that a store takes: of a file system of its own as that says, else of its files one by one."""
    os.sync()
    if not (folder / "store").exists() and not os.path.ismount(folder):
        return 0
    if os.path.ismount(folder):
        about = os.statvfs(folder)
        return (about.f_blocks - about.f_bfree) * about.f_frsize
    return sum(path.lstat().st_blocks * 512 for path in (folder / "store").rglob("*"))


@contextlib.contextmanager
def _place(scratch: Path) -> Iterator[tuple[Path, str]]:
    folder = scratch / "courses"
    folder.mkdir()
    if os.geteuid() == 0 and shutil.which("mkfs.xfs"):
        image = scratch / "courses.img"
        with image.open("wb") as file:
            file.truncate(_ROOM)
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], check=True)
        mounted = subprocess.run(["mount", "-o", "loop", str(image), str(folder)], capture_output=True)
        if mounted.returncode == 0:
            try:
                yield folder, "XFS, reflinks"
            finally:
                subprocess.run(["umount", str(folder)], check=False)
                image.unlink()
            return
    yield folder, NO_REFLINKS

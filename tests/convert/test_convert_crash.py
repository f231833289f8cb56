"""`hpcbinder convert` killed at any step, on a full disk, twice at once, and on machines that lack something."""

from __future__ import annotations

import errno
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stacks import Layer, MemoryImage, write_oci_layout

# Imported here, so that each of the many copies of this process need not.
import hpcbinder.cli.convert
import hpcbinder.cli.report
import hpcbinder.converting  # noqa: F401
from hpcbinder import look, placing
from hpcbinder.cli.main import main

FORMATS = "sif,squashfs,shifter"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout whose layers have blocks, fragments, links and whiteouts."""
    folder = tmp_path_factory.mktemp("source") / "image"
    lower = Layer().folder("etc").file("etc/os-release", "ID=x\n").file("blocks", random.Random(1).randbytes(600_000))
    middle = Layer().file("more", random.Random(2).randbytes(200_000)).hard_link("other", "more").link("l", "blocks")
    write_oci_layout(MemoryImage(lower, middle, Layer().whiteout("l").file("top", "x" * 3000)), folder)
    return folder


class Place:
    """A store and a folder for results, and what is in them."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.store, self.out, self.folder = folder / "store", folder / "out", folder
        self.arguments = ["--store", str(self.store), "convert", f"oci:{source}", "--to", FORMATS, "-o", str(self.out)]
        self.arguments += ["--force", "--name", "image", "--compression", "gzip:1"]

    def command(self) -> list[str]:
        return [sys.executable, "-m", "hpcbinder", *self.arguments]

    def patched(self, change: str) -> list[str]:
        """The command on a machine that is another one: `change` is run first, and may use `refuse(ERRNO)`."""
        code = (
            "import fcntl, os, pathlib, sys\n"
            "def refuse(number):\n"
            "    def refused(*arguments, **named): raise OSError(number, os.strerror(number))\n"
            "    return refused\n"
            f"{change}\n"
            "from hpcbinder.cli.main import main\nsys.argv = sys.argv[1:]\nmain()\n"
        )
        return [sys.executable, "-c", code, "hpcbinder", *self.arguments]

    def run(self, **extra: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(), env=self.environment, capture_output=True, text=True, **extra)

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}

    def layers(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.store / "layers").glob("*.squashfs")}

    def results(self) -> dict[str, bytes]:
        """All with a name of its own, at the target."""
        return {
            str(path.relative_to(self.out)): path.read_bytes()
            for path in self.out.rglob("*")
            if path.is_file() and not path.relative_to(self.out).parts[0].startswith(".")
        }

    def left(self) -> list[Path]:
        """What is scratch, of a run that lives or was killed."""
        return [*(self.store / "tmp").glob("*"), *self.out.glob(".*")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Place:
    """What an undisturbed run gives."""
    place = Place(tmp_path_factory.mktemp("whole"), source)
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert len(place.layers()) == 3 and len(place.results()) == 4 and place.left() == []
    return place


def judge(place: Place, whole: Place) -> None:
    """Whatever has happened: what has a final name is whole."""
    wanted = whole.layers()
    for name, content in place.layers().items():
        assert content == wanted[name]
        assert look.check(place.store / "layers" / name, lambda done: None) == []
    wanted = whole.results()
    for name, content in place.results().items():
        assert content == wanted[name]


def finishes(place: Place, whole: Place) -> None:
    """The next run gives the same bytes, and removes what is left of the others."""
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert place.layers() == whole.layers() and place.results() == whole.results() and place.left() == []


class Steps:
    """Counts what a process does to its file systems, and ends it by SIGKILL at one of these steps.

    Python tells an audit hook (PEP 578) before it opens, names or removes a file. Writing and syncing it does not tell
    of, so that these functions are replaced; what is written at the last step is written by half.
    """

    NAMED = frozenset(f"os.{name}" for name in ("rename", "link", "symlink", "mkdir", "remove", "rmdir", "chmod"))
    SILENT = ("pwrite", "fsync", "ftruncate", "copy_file_range", "fchmod")

    def __init__(self, last: int | None) -> None:
        self.count = 0
        self._last = last
        sys.addaudithook(self._hear)
        for name in self.SILENT:
            setattr(os, name, self._counted(name, getattr(os, name)))

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in self.NAMED or (event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT):
            self._step()

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if name == "pwrite" and self.count + 1 == self._last:
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2], arguments[2])
            self._step()
            return real(*arguments, **named)

        return call

    def _step(self) -> None:
        self.count += 1
        if self.count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)


def forked(place: Place, last: int | None) -> tuple[int, int]:
    """Run the command in a copy of this process that ends at a step; its wait status, and how many steps it took."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 70
        try:
            os.close(reading)
            sys.stdout = sys.stderr = io.StringIO()
            environment = place.environment
            os.environ.clear()
            os.environ.update(environment)
            sys.argv = ["hpcbinder", *place.arguments]
            steps = Steps(last)
            try:
                main()
                status = 0
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 0 if error.code is None else 71
            os.write(writing, steps.count.to_bytes(4, "big"))
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read()
    return os.waitpid(child, 0)[1], int.from_bytes(said, "big")


def test_killed_at_any_step_all_that_has_a_name_is_whole(tmp_path: Path, source: Path, whole: Place) -> None:
    status, steps = forked(Place(tmp_path / "count", source), None)
    assert status == 0 and steps > 60
    place = Place(tmp_path / "place", source)
    for number, step in enumerate([*range(1, steps, max(steps // 45, 1)), steps]):
        fresh = number % 3 == 0
        if fresh:
            # Else this one finds what those before it left.
            shutil.rmtree(place.folder, ignore_errors=True)
        status, _ = forked(place, step)
        assert (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL) or (not fresh and status == 0), step
        judge(place, whole)
        if number % 9 == 8:
            finishes(place, whole)
    finishes(place, whole)


def test_killed_at_any_moment_the_next_run_finishes(tmp_path: Path, source: Path, whole: Place) -> None:
    place = Place(tmp_path, source)
    chance = random.Random(3)
    for _ in range(8):
        process = subprocess.Popen(place.command(), env=place.environment, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while not (place.store / "layers").is_dir() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.15))
        process.kill()
        process.wait()
        judge(place, whole)
    finishes(place, whole)


def test_processes_that_begin_at_once_share_the_work(tmp_path: Path, source: Path, whole: Place) -> None:
    """Each layer is read and compressed by one of them; the others wait for it."""
    places = [Place(tmp_path, source) for _ in range(3)]
    for number, place in enumerate(places):
        place.out = tmp_path / f"out{number}"
        place.arguments[place.arguments.index("-o") + 1] = str(place.out)
    processes = [
        subprocess.Popen(place.command(), env=place.environment, stderr=subprocess.PIPE, text=True) for place in places
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, said
    assert sum(text.count("compressing layer") for text in said) == 3
    for place in places:
        judge(place, whole)
        assert place.results() == whole.results() and place.left() == []


@pytest.mark.parametrize("limit", [2000, 40_000, 300_000, 700_000])
def test_a_file_that_may_not_grow_is_one_clear_message(tmp_path: Path, source: Path, whole: Place, limit: int) -> None:
    """As a full disk is, at the first layer, at the results; and what had been finished stays finished."""
    place = Place(tmp_path, source)
    done = place.run(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)))
    assert done.returncode == 6, done.stderr
    assert one_message(done.stderr, "File too large")
    judge(place, whole)
    assert place.left() == [] and place.results() == {}
    finishes(place, whole)


def one_message(stderr: str, why: str) -> bool:
    lines = [line for line in stderr.splitlines() if "error" in line.lower() or why in line]
    return "Traceback" not in stderr and len(lines) == 1 and why in lines[0]


FULL = """
set -eu
mount -t tmpfs -o size="$1" none "$2"
shift 2
status=0
"$@" || status=$?
echo "status $status"
find "$0" -path "$0/.*" -o -type f -printf '%P\\n'
"""


@pytest.mark.rig
@pytest.mark.parametrize(("size", "full"), [("400k", "store"), ("700k", "store"), ("500k", "out"), ("1200k", "out")])
def test_a_full_disk_is_one_clear_message(tmp_path: Path, source: Path, whole: Place, size: str, full: str) -> None:
    """A small tmpfs below the store, or where the results are to go, which only the command's processes see."""
    place = Place(tmp_path, source)
    for folder in (place.store, place.out):
        folder.mkdir()
    disk = place.store if full == "store" else place.out
    command = ["unshare", "--mount", "sh", "-c", FULL, str(disk), size, str(disk), *place.command()]
    done = subprocess.run(command, env=place.environment, capture_output=True, text=True, check=True)
    status, *found = done.stdout.splitlines()
    assert status == "status 6", done.stderr
    assert one_message(done.stderr, "No space left on device")
    assert not [name for name in found if "tmp/" in name or name.endswith((".sif", ".meta"))]
    assert full == "store" or found == []
    judge(place, whole)
    assert place.left() == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("function", ["pwrite", "fsync", "replace"])
def test_whatever_the_system_refuses_is_one_clear_message(
    tmp_path: Path, source: Path, whole: Place, function: str, number: int
) -> None:
    """The system's answer is made up: a quota cannot be had in a test."""
    place = Place(tmp_path, source)
    shutil.copytree(whole.store, place.store, ignore=shutil.ignore_patterns("*.squashfs"))
    command = place.patched(f"os.{function} = refuse({number})")
    done = subprocess.run(command, env=place.environment, capture_output=True, text=True)
    assert done.returncode == 6, done.stderr
    assert one_message(done.stderr, os.strerror(number))
    judge(place, whole)
    assert place.results() == {} and place.left() == []


@pytest.mark.parametrize(
    "change",
    [
        "del os.copy_file_range",
        f"os.copy_file_range = refuse({errno.ENOSYS})",
        f"pathlib.Path.hardlink_to = refuse({errno.EPERM})",
        "del os.sched_getaffinity",
        "sys.modules['deflate'] = None",
    ],
)
def test_what_a_machine_lacks_changes_no_result(tmp_path: Path, source: Path, whole: Place, change: str) -> None:
    """A Python made for an old C library, an old kernel, a file system without hard links, one without libdeflate."""
    place = Place(tmp_path, source)
    done = subprocess.run(place.patched(change), env=place.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert place.results().keys() == whole.results().keys() and place.left() == []
    if "deflate" in change:
        # Other bytes, of the same files.
        images = (look.open_image(at.out / "image.sif") for at in (place, whole))
        with next(images) as one, next(images) as other:
            assert list(look.differences(one, other, lambda done: None)) == []
    else:
        assert place.results() == whole.results()


def test_a_store_without_locks_is_one_clear_message(tmp_path: Path, source: Path) -> None:
    place = Place(tmp_path, source)
    change = f"fcntl.flock = refuse({errno.ENOLCK})"
    done = subprocess.run(place.patched(change), env=place.environment, capture_output=True, text=True)
    assert done.returncode == 8 and "the store's file system has no file locks" in done.stderr
    assert place.results() == {} and place.left() == []


def test_a_folder_taken_for_a_dead_ones_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    mkdir = Path.mkdir

    def watched(path: Path, *arguments: Any, **named: Any) -> None:
        mkdir(path, *arguments, **named)
        made.append(path)
        if len(made) == 1:
            placing._remove_dead(path)

    monkeypatch.setattr(Path, "mkdir", watched)
    with placing.unfinished(tmp_path) as work:
        assert work.is_dir() and work.parent == made[1] and not made[0].exists()
        placing._remove_dead(work)
        assert work.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_one_core_is_enough(tmp_path: Path, source: Path, whole: Place) -> None:
    place = Place(tmp_path, source)
    core = min(os.sched_getaffinity(0))
    done = place.run(preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    assert done.returncode == 0 and place.results() == whole.results(), done.stderr
    command = [sys.executable, "-m", "hpcbinder", "check", str(place.out / "image.sif")]
    done = subprocess.run(
        command,
        env=place.environment,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    assert done.returncode == 0, done.stderr

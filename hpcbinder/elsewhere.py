"""Making images in jobs: all that needs the network is done here, the rest on a node that has none.

The node gets the plan, the repository's files and what was fetched in the store, which it must see; what is unfinished
lies on its own disk. It runs this very hpcbinder (`python -m hpcbinder.elsewhere FOLDER`), which it must see, too, and
says what it does as JSON lines on its standard output.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcbinder import errors
from hpcbinder.build import make
from hpcbinder.builders import ASSEMBLED, fetch_ahead
from hpcbinder.catalog import Catalog, dump, parse
from hpcbinder.config import Config, load
from hpcbinder.errors import BuildError, CatalogError, HpcbinderError
from hpcbinder.model import Checkout, Entry, Plan
from hpcbinder.process import usable_cores
from hpcbinder.progress import Clock, Reporter
from hpcbinder.runtime import Compression, choose_compression
from hpcbinder.scheduler import Resources, Slurm
from hpcbinder.source import go_offline
from hpcbinder.squashfs import Options
from hpcbinder.text import one_line

_WORK = "work.json"
_PREFIX = "hpcbinder-build-"
_LONGEST = 1 << 20
_PATIENCE = 30.0
"""Seconds that what a node wrote may take to be seen here (NFS)."""
_NO_PYTHON = 127

# $1: where hpcbinder's Python is, $2: the folder with the work.
_ON_NODE = f"""
if [ ! -x "$1" ]; then echo "hpcbinder's Python, $1, is not on $(uname -n)" >&2; exit {_NO_PYTHON}; fi
if [ ! -r "$2" ]; then echo "the store's folder $2 is not on $(uname -n)" >&2; exit {_NO_PYTHON}; fi
exec "$1" -B -m hpcbinder.elsewhere "$2"
"""
_OUTLIVED_BY_NOBODY = """
import os, sys
from hpcbinder.runtime import Command, execute
count = int(sys.argv[1])
rest = sys.argv[2:]
sys.exit(execute(Command(tuple(rest[count:]), os.environ, cleanup=tuple(rest[:count])), parent=os.getppid()))
"""
"""Runs srun, and cancels its job when whoever started it is gone, however."""


@dataclass(frozen=True)
class InJob:
    """Makes images as jobs of Slurm; a `Maker`.

    Args:
        resources: What a job asks for.
        flags: Settings that options of the command line stand for: the node reads the others where we do.
        environ: Leads to the cluster.
    """

    resources: Resources
    flags: Mapping[str, object]
    environ: Mapping[str, str]

    def __call__(
        self,
        plan: Plan,
        checkout: Checkout,
        config: Config,
        formats: tuple[str, ...],
        catalog: Catalog,
        reporter: Reporter,
        clock: Clock,
        scratch: Path,
    ) -> Entry:
        """See `hpcbinder.build.make`.

        Raises:
            BuildError: The image cannot be made without a network, or the job ended before it was made.
            RunError: There is no Slurm here.
            HpcbinderError: What failed on the node.
        """
        slurm = Slurm(self.environ)
        compression = choose_compression(config.build.compression, config)
        with clock("fetch"):
            fetch_ahead(
                plan,
                catalog=catalog,
                scratch=scratch,
                config=config,
                options=compression.options,
                reporter=reporter,
            )
        folder = scratch / "job"
        folder.mkdir(mode=0o700)
        flags = {**self.flags, "store.path": str(catalog.path), "build.engine": ASSEMBLED}
        work = {
            "flags": {name: _plain(value) for name, value in flags.items()},
            "formats": list(formats),
            "compression": [compression.name, compression.why],
        }
        (folder / _WORK).write_text(json.dumps(work), encoding="ascii")
        (folder / "plan.json").write_bytes(dump(plan))
        (folder / "checkout.json").write_bytes(dump(checkout))
        name = f"{_PREFIX}{plan.id}-{secrets.token_hex(4)}"
        command = ["/bin/sh", "-c", _ON_NODE, "sh", sys.executable, str(folder)]
        argv = slurm.argv(self.resources, command, mpi="none", name=name)
        reporter.phase("build", f"job {name}: waiting for a node")
        with clock("build"):
            said = self._follow(argv, slurm.cancel(name), folder, reporter)
        for phase, seconds in said.get("timings", {}).items():
            clock.timings[phase] = round(float(seconds), 3)
        return _found(catalog, plan.id)

    def _follow(
        self, argv: tuple[str, ...], cancel: tuple[str, ...], folder: Path, reporter: Reporter
    ) -> dict[str, Any]:
        """Run the job to its end, and say what it says; what it came to."""
        watched = [sys.executable, "-c", _OUTLIVED_BY_NOBODY, str(len(cancel)), *cancel, *argv]
        # In the job's own folder: a module of somebody's working directory is not ours.
        process = subprocess.Popen(
            watched,
            cwd=folder,
            env=dict(self.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None
        last, ended = "", None
        try:
            while line := process.stdout.readline(_LONGEST):
                event = _event(line)
                if "entry" in event or "error" in event:
                    ended = event
                elif event.get("log"):
                    reporter.log(event["phase"], event["message"])
                elif "phase" in event:
                    reporter.phase(event["phase"], event["message"], event["progress"])
                elif text := one_line(line.decode("utf-8", "replace").strip(), 500):
                    last = text
                    reporter.log("build", text)
            code = process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
        finally:
            process.stdout.close()
        if ended is None:
            hint = "store.path and hpcbinder's own environment must lie where nodes see them" if code == 127 else None
            raise BuildError(f"the job ended before the image was made: {last or f'exit code {code}'}", hint=hint)
        if "error" in ended:
            raise _raised(ended["error"])
        return ended


class _Lines:
    """A reporter whose reader is on another machine."""

    def phase(self, phase: str, message: str, progress: float | None = None) -> None:
        _say({"phase": phase, "message": message, "progress": progress})

    def log(self, phase: str, line: str) -> None:
        _say({"phase": phase, "message": line, "progress": None, "log": True})


def main(folder: Path) -> int:
    """Do the work of a job, on its node.

    Args:
        folder: Where `InJob` left it: this user's own, closed to others.

    Returns:
        The exit code.
    """
    try:
        status = folder.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise CatalogError("is not a folder of this user's own", where=str(folder))
        entry, timings = _work(folder)
        _say({"entry": entry.id, "timings": timings})
        return 0
    except HpcbinderError as error:
        told = {"message": error.message, "where": error.where, "hint": error.hint}
        _say({"error": {"kind": type(error).__name__, "code": error.exit_code, **told}})
        return error.exit_code


def _work(folder: Path) -> tuple[Entry, dict[str, float]]:
    work = json.loads((folder / _WORK).read_bytes())
    flags = {name: tuple(value) if isinstance(value, list) else value for name, value in work["flags"].items()}
    config = load(flags)
    plan = parse((folder / "plan.json").read_bytes(), Plan, folder / "plan.json")
    checkout = parse((folder / "checkout.json").read_bytes(), Checkout, folder / "checkout.json")
    if not checkout.root.is_dir():
        raise BuildError("the repository's folder is not on the node", where=one_line(str(checkout.root)))
    go_offline()
    reporter, clock, catalog = _Lines(), Clock(), Catalog(config.store.path, config.store.site)
    with (
        catalog.temporary() as scratch,
        tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as place,
    ):
        reporter.phase("build", f"on {os.uname().nodename}, {usable_cores()} cores, unfinished files in {place}")
        name, why = work["compression"]
        entry = make(
            plan,
            checkout,
            config,
            tuple(work["formats"]),
            catalog,
            reporter,
            clock,
            scratch,
            compression=Compression(Options.parse(name), why),
            workplace=Path(place),
        )
    return entry, clock.timings


def _found(catalog: Catalog, id_: str) -> Entry:
    end = time.monotonic() + _PATIENCE
    while (entry := catalog.find(id_)) is None and time.monotonic() < end:
        time.sleep(0.5)
    if entry is None:
        raise CatalogError(f"the node made {id_}, but it is not to be seen here", where=str(catalog.path))
    return entry


def _say(event: Mapping[str, object]) -> None:
    # Straight to the descriptor, whole: several threads speak.
    os.write(1, (json.dumps(event) + "\n").encode("ascii"))


def _event(line: bytes) -> dict[str, Any]:
    """What a line says, {} if it is none of ours: a prologue may print whatever it likes."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(event, dict):
        return {}
    if isinstance(event.get("error"), dict) or isinstance(event.get("entry"), str):
        return event
    progress = event.get("progress")
    if not all(isinstance(event.get(name), str) for name in ("phase", "message")):
        return {}
    return {
        "phase": one_line(event["phase"], 40),
        "message": one_line(event["message"]),
        "progress": progress if isinstance(progress, float) and 0 <= progress <= 1 else None,
        "log": event.get("log") is True,
    }


def _raised(told: Mapping[str, Any]) -> HpcbinderError:
    kind = getattr(errors, str(told.get("kind")), BuildError)
    if not (isinstance(kind, type) and issubclass(kind, HpcbinderError)):
        kind = BuildError
    where, hint = (one_line(str(told[name])) if told.get(name) else None for name in ("where", "hint"))
    return kind(one_line(str(told.get("message", ""))), where=where, hint=hint)


def _plain(value: object) -> object:
    return [str(each) for each in value] if isinstance(value, (list, tuple)) else str(value)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

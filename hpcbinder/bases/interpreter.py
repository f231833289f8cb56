"""Interpreters of the machine's own folders, as images whose files a build step copies."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hpcbinder.bases.kept import BaseImage, Parts, ensure_kept
from hpcbinder.errors import BuildError
from hpcbinder.interpreters import Interpreter, files_stamp, left_out, write_layer
from hpcbinder.model import Python, Stage, Step
from hpcbinder.progress import Reporter


def python_folder(version: str) -> str:
    """Where such an interpreter lies in an image."""
    return f"/opt/python/{version}"


def interpreter_tag(python: Python) -> str:
    """Name that the image with an interpreter's files has in an engine."""
    return f"localhost/hpcbinder/python:{python.version}-{python.digest.removeprefix('sha256:')[:16]}"


def interpreter_digest(interpreter: Interpreter, suite: str, *, cache: Path | None) -> str:
    """Identity of the files that an image on a suite gets, `sha256:…`; all of them are read, unless nothing changed.

    Args:
        cache: Folder where to keep it; need not exist.

    Raises:
        BuildError: A file cannot be read.
    """
    without = left_out(interpreter, suite)
    mark = hashlib.sha256(json.dumps([files_stamp(interpreter), without]).encode()).hexdigest()
    kept = cache / f"{mark[:32]}.digest" if cache is not None else None
    if kept is not None:
        try:
            known = kept.read_text().strip()
            if known.startswith("sha256:") and len(known) == 71:
                return known
        except (OSError, ValueError):
            pass
    digest = write_layer(interpreter, None, target=python_folder(interpreter.version), without=without).diff_id
    if kept is not None:
        _keep(kept, digest)
    return digest


def interpreter_step(python: Python, stage: Stage) -> Step:
    """The step that puts an interpreter's files into the image."""
    return Step(
        stage=stage,
        name="base/python" if stage is Stage.INTERPRETER else "base/server-python",
        reason=f"Python {python.full}, which Debian {python.suite} does not have, from a folder of the builder's",
        script=_script("interpreter.sh") + finished(),
        data={"version": python.version},
        image=interpreter_tag(python),
    )


def ensure_interpreter(
    python: Python, interpreter: Interpreter, *, folder: Path, shared: Sequence[Path], reporter: Reporter
) -> BaseImage:
    """The archive of an interpreter's files, written if it is not there yet.

    Args:
        python: What the plan says of it.
        folder: Where such archives are kept.
        shared: Read-only folders of other stores to look in first.

    Raises:
        BuildError: It cannot be read or kept, or is another one now.
    """

    def make(scratch: Path) -> Parts:
        reporter.phase("build", f"Python {python.full} from {python.source}: packing (once)")
        layer_path = scratch / "layer.tar"
        with layer_path.open("wb") as out:
            layer = write_layer(
                interpreter,
                out,
                target=python_folder(python.version),
                without=left_out(interpreter, python.suite),
            )
        if layer.diff_id != python.digest:
            raise BuildError("the interpreter changed since the plan was made", where=python.source, hint="run again")
        return {"architecture": interpreter.architecture, "os": "linux", "config": {}}, [(layer.diff_id, layer_path)]

    return ensure_kept(
        f"python-{python.digest.removeprefix('sha256:')[:16]}",
        interpreter_tag(python),
        what=f"Python {python.version}",
        folder=folder,
        shared=shared,
        reporter=reporter,
        make=make,
    )


def _keep(path: Path, digest: str) -> None:
    """Where it cannot be kept, it is found out again next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".digest-", dir=path.parent)
        with os.fdopen(handle, "w") as file:
            file.write(f"{digest}\n")
        Path(name).replace(path)
    except OSError:
        pass


def finished() -> str:
    """The end of a step's script that put a Python into its folder: `version` and `target` are set."""
    return _script("finished.sh")


@functools.cache
def _script(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")

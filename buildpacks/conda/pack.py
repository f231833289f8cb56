"""Conda: an environment at /opt/env from the packages that a solver finds in the site's channels.

It is assembled of packages that are known by their hashes before anything is built; the pip section joins on top of
it, by way of the Python pack.
"""

from __future__ import annotations

import json

from hpcbinder.plan import (
    ENGINE_SCRIPT,
    Assembly,
    DetectError,
    Draft,
    Edit,
    Lock,
    Provided,
    Python,
    Repo,
    Stage,
    TextFile,
    conda_list,
    show,
)

from .environment import Environment, read_environment
from .explicit import read_explicit
from .names import index_name

PREFIX = "/opt/env"
ACTIVATE = "/opt/hpcbinder/bin/activate"
"""What the entrypoint runs first, if it is there."""

EXTRAS = ("ipykernel", "pip")
"""In every environment where the channels have them. pip: postBuild scripts call it."""

KERNEL = Edit(f"{PREFIX}/share/jupyter/kernels/python3/kernel.json", r'^( *)"python3*",$', rf'\1"{PREFIX}/bin/python",')
SUBDIRS = {"amd64": "linux-64", "arm64": "linux-aarch64"}


def plan(repo: Repo, draft: Draft) -> None:
    path = _file(repo, draft)
    if path is None:
        return
    try:
        if path.endswith(".lock"):
            environment = Environment()
            lock, notes = draft.resolve_conda([], exact=read_explicit(repo, path))
        else:
            environment = read_environment(repo, path)
            specs = [text for text, _ in environment.specs]
            lock, notes = draft.resolve_conda(specs, channels=environment.channels, extras=EXTRAS)
        python = _python(lock, path, draft)
        draft.choose_python(python)
    except DetectError as error:
        raise DetectError(error.message, where=error.where or show(path), hint=error.hint) from None
    said = "; ".join((f"{len(lock.packages)} conda packages, Python {python.full}", *environment.notes, *notes))
    draft.used(path, said)
    draft.asks("conda", sorted({_spec_name(text) for text, _ in environment.specs}))
    _assemble(draft, lock, environment, python)
    draft.add_kernel("python3")
    if any(package.name == "r-irkernel" for package in lock.packages):
        draft.add_kernel("ir")
    packages = {name: p.version for p in lock.packages if (name := index_name(p.name, p.version, p.build)) is not None}
    draft.provide(Provided(draft.pack, path, packages, environment.requirements))


def _file(repo: Repo, draft: Draft) -> str | None:
    """The file that counts: exact packages before what has to be solved, as with the locks of other ecosystems."""
    ours = SUBDIRS.get(draft.architecture, "")
    there = [name for name in (f"conda-{ours}.lock", "environment.yml", "environment.yaml") if repo.config(name)]
    for subdir in SUBDIRS.values():
        if subdir != ours and (other := repo.config(f"conda-{subdir}.lock")):
            draft.unused(other, f"is for {subdir}, the image for {ours}")
    for name in there[1:]:
        draft.unused(repo.config(name) or name, f"{there[0]}, which counts more, says what the environment is")
    return repo.config(there[0]) if there else None


def _python(lock: Lock, path: str, draft: Draft) -> Python:
    found = next((package for package in lock.packages if package.name == "python"), None)
    if found is None:
        raise DetectError("has no python, which a notebook's kernel needs", where=show(path))
    if found.build.endswith("t") and "_cp" in found.build:
        raise DetectError(f"its Python {found.version} is one without a global lock, which is not supported")
    return Python(lock.python, found.version, draft.pythons[0].suite, "conda", f"{PREFIX}/bin/python", show(path))


def _assemble(draft: Draft, lock: Lock, environment: Environment, python: Python) -> None:
    known = [{"name": package.name, "version": package.version, "build": package.build} for package in lock.packages]
    draft.add_step(
        Stage.INTERPRETER,
        "environment",
        f"an environment of {len(lock.packages)} conda packages with Python {python.full}",
        ENGINE_SCRIPT,
        data={"conda.json": conda_list(lock)},
        assembly=Assembly(
            prefix=PREFIX,
            python=python.full,
            conda="conda.json",
            edits=(KERNEL,),
            files={
                "/opt/hpcbinder/packages/conda.json": TextFile(json.dumps(known, separators=(",", ":")) + "\n"),
                f"{PREFIX}/conda-meta/history": TextFile(_history(lock, environment)),
                ACTIVATE: TextFile(draft.script("activate"), 0o755),
            },
        ),
    )
    draft.set_env("CONDA_PREFIX", PREFIX)
    draft.set_env("CONDA_DEFAULT_ENV", PREFIX)
    draft.set_env("CONDA_SHLVL", "1")
    for name, value in environment.variables.items():
        draft.set_env(name, value)


def _history(lock: Lock, environment: Environment) -> str:
    """What makes a folder an environment for conda, and tells what was asked for (conda, `conda/history.py`)."""
    lines = ["==> 2020-01-01 00:00:00 <==", "# cmd: hpcbinder"]
    for package in lock.packages:
        channel, subdir, _ = package.url.rsplit("/", 2)
        lines.append(f"+{channel}/{subdir}::{package.name}-{package.version}-{package.build}")
    specs = [text for text, _ in environment.specs]
    return "\n".join((*lines, f"# update specs: {json.dumps(specs)}")) + "\n"


def _spec_name(text: str) -> str:
    name = text.rpartition("::")[2]
    for end in " =<>!~[":
        name = name.partition(end)[0]
    return name.lower()

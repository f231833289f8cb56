"""Conda: an environment at /opt/env from the packages that a solver finds in the site's channels, or that a lock names.

It is assembled of packages that are known by their hashes before anything is built; the pip section joins on top of
it, by way of the Python pack. Where a site has no channels (`conda.mode`), the same files are translated instead, and
all of it goes by way of the Python pack and Debian's packages.
"""

from __future__ import annotations

import json
import re

from packaging.specifiers import InvalidSpecifier, SpecifierSet

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
    Translated,
    conda_list,
    served,
    show,
)

from .choose import Chosen, choose
from .environment import Environment, requirements_text
from .names import Table, index_name
from .translate import Translation, read_table, translate

PREFIX = "/opt/env"
ACTIVATE = "/opt/hpcbinder/bin/activate"
"""What the entrypoint runs first, if it is there."""

EXTRAS = ("ipykernel", "pip")
"""In every environment where the channels have them. pip: postBuild scripts call it."""

R_KERNEL = "r-irkernel"
"""In every environment with R where the channels have it, as repo2docker has it."""

MPI_NEED = frozenset({"dask-mpi", "fenics-dolfinx", "mpi4jax", "mpi4py", "mpi4py-fft", "petsc4py", "slepc4py"})
"""Conda packages that there is one build of for each MPI: which one the solver takes would be chance."""

KERNEL = Edit(f"{PREFIX}/share/jupyter/kernels/python3/kernel.json", r'^( *)"python3*",$', rf'\1"{PREFIX}/bin/python",')

R_SPEC = {
    "argv": ["/usr/bin/R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"],
    "display_name": "R",
    "language": "R",
}
"""As `IRkernel::installspec()` writes it."""


def plan(repo: Repo, draft: Draft) -> None:
    chosen = choose(repo, draft)
    if chosen is None:
        return
    table = read_table(draft.script("translations.toml"))
    environment = chosen.environment
    variables = {**(chosen.partner[1].variables if chosen.partner else {}), **environment.variables}
    specs = chosen.partner[1].specs if chosen.partner else environment.specs
    names = sorted({_spec_name(text) for text, _ in specs})
    if chosen.partner:
        draft.used(chosen.partner[0], f"asks for {len(names)} packages; {show(chosen.path)} says which versions")
    if draft.translates_conda:
        _translate(draft, chosen, table)
    else:
        draft.asks("conda", names)
        _install(draft, chosen, names, table)
    for name, value in variables.items():
        draft.set_env(name, value)


def _install(draft: Draft, chosen: Chosen, names: list[str], table: Table) -> None:
    """An environment of conda packages."""
    environment, path = chosen.environment, chosen.path
    mpi: tuple[str, ...] = ()
    try:
        if environment.exact:
            lock, notes = draft.resolve_conda([], exact=environment.exact)
        else:
            texts = [text for text, _ in environment.specs]
            r = (R_KERNEL,) if any(name.startswith("r-") for name in names) else ()
            mpi = (draft.mpi_abi,) if _lacks_mpi(texts) and not environment.export else ()
            lock, notes = draft.resolve_conda(
                texts,
                channels=environment.channels,
                extras=(*EXTRAS, *r, *mpi),
                export=environment.export,
            )
        python = _python(lock, path, draft)
        draft.choose_python(python)
    except DetectError as error:
        raise DetectError(error.message, where=error.where or show(path), hint=error.hint) from None
    if any(package.name in mpi for package in lock.packages):
        notes = (*notes, f"{mpi[0]} for what needs an MPI, as it does not say which (mpi.abi)")
    count = f"{len(lock.packages)} conda package{'s' * (len(lock.packages) != 1)}"
    said = "; ".join((f"{count}, Python {python.full}", *environment.notes, *notes))
    draft.used(path, said)
    _assemble(draft, lock, environment, python)
    draft.add_kernel("python3")
    if any(package.name == R_KERNEL for package in lock.packages):
        draft.add_kernel("ir")
    known = ((index_name(p.name, p.version, p.build, table), p.version) for p in lock.packages)
    packages = {name: version for name, version in known if name is not None}
    draft.provide(Provided(draft.pack, path, packages, environment.requirements))


def _lacks_mpi(texts: list[str]) -> bool:
    """Whether something needs MPI, and nothing says which: neither a package of an MPI nor a build for one."""
    rest = [text for text in texts if _spec_name(text) not in MPI_NEED]
    return len(rest) < len(texts) and not any(re.search(r"mpi", text) for text in rest)


def _translate(draft: Draft, chosen: Chosen, table: Table) -> None:
    """The same of Debian's and the Python index's packages."""
    path = chosen.path
    found = translate(chosen.environment, path, table)
    python = _interpreter(draft, found, path)
    for name, stands_for in sorted(found.debian.items()):
        draft.want_system([name], f"{stands_for} of {show(path)}")
    if found.r:
        draft.want_system(["r-cran-irkernel"], f"R's kernel for {show(path)}")
        _r_kernel(draft)
    draft.used(path, "; ".join((*chosen.environment.notes, *found.notes, *([f"Python {python}"] if python else ()))))
    text = requirements_text([*found.requirements, *chosen.environment.pip])
    draft.translate(Translated(draft.pack, path, text, python=bool(python)))


def _interpreter(draft: Draft, found: Translation, path: str) -> str:
    """Choose the interpreter that the file asks for.

    Returns:
        Its version, "" if the file does not say.

    Raises:
        DetectError: There is none.
    """
    if not found.python:
        return ""
    where = f"{show(path)}:{found.where}" if found.where else show(path)
    try:
        range_ = SpecifierSet(found.python)
    except InvalidSpecifier:
        raise DetectError(f"'{show(found.python)}' is no range of versions", where=where) from None
    # Of an exact patch release just X.Y is binding, as everywhere.
    exact = [spec.version.split(".")[:2] for spec in range_ if spec.operator == "==" and spec.version.count(".") > 1]
    loose = SpecifierSet(",".join(f"=={'.'.join(parts)}.*" for parts in exact)) if exact else range_
    fits = [python for python in draft.pythons if loose.contains(python.full, prereleases=True)]
    if not fits:
        raise DetectError(
            f"asks for Python {show(found.python)}, which no base has",
            where=where,
            hint=f"there is Python {served(draft.pythons)}",
        )
    draft.choose_python(fits[0])
    return draft.python.full


def _r_kernel(draft: Draft) -> None:
    path = f"{PREFIX}/share/jupyter/kernels/ir/kernel.json"
    text = json.dumps(R_SPEC, indent=1) + "\n"
    draft.add_step(
        Stage.DEPENDENCIES,
        "r-kernel",
        "tells Jupyter of R's kernel",
        draft.script("r-kernel.sh"),
        data={"kernel.json": text},
        assembly=Assembly(files={path: TextFile(text)}),
    )
    draft.add_kernel("ir")


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

"""A plan in words, for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from hpcbinder.contract import REPO_DIR
from hpcbinder.model import AsOf, Decision, Lock, OwnDockerfile, Plan, Stage
from hpcbinder.plan.content import placed_files
from hpcbinder.text import day_of, printable


def explain(plan: Plan) -> str:
    """What would be done and why, file by file. Nothing in it can command a terminal."""
    return "\n".join(printable(line) for line in _lines(plan)) + "\n"


def _lines(plan: Plan) -> Iterator[str]:
    yield plan.id
    yield f"  source   {plan.source}" + (f"  (folder {plan.subdir})" if plan.subdir else "")
    yield f"  commit   {_commit(plan)}"
    python = f", Python {plan.base.python}" if plan.own is None else ""
    yield f"  base     {plan.base.name}{python}, {plan.base.architecture}"
    if plan.base.image:
        yield f"  image    {plan.base.image}"
    if plan.own is None and plan.python.origin != "debian":
        yield f"  python   {plan.python.full} from {plan.python.source}"
    if plan.as_of is not None:
        yield f"  as of    {_as_of(plan.as_of)}"
    yield f"  packs    {', '.join(f'{pack.name} {pack.version}{_origin(pack.origin)}' for pack in plan.packs)}"
    needs = [*([f"MPI ({plan.mpi})"] if plan.mpi else []), *([f"a GPU ({plan.gpu})"] if plan.gpu else [])]
    if needs:
        yield f"  needs    {', '.join(needs)}"
    if plan.decisions:
        yield ""
        yield "Files"
        width = min(40, max(len(decision.file) for decision in plan.decisions))
        yield from (_decision(decision, width) for decision in plan.decisions)
    if plan.locks:
        yield ""
        yield "Versions"
        for lock in plan.locks:
            yield from _lock(lock)
    yield ""
    if plan.own is not None:
        yield from _own(plan, plan.own)
        return
    yield "Steps"
    finish = [step for step in plan.steps if step.stage is Stage.FINISH]
    for step in plan.steps:
        if step not in finish:
            yield from _step(step.name, step.reason, step.reads, step.data, step.runs_repository_code)
    count = f"{plan.content.files} file{'s' * (plan.content.files != 1)}"
    rest = "all other files" if placed_files(plan.steps) else "the repository's files"
    yield f"  content: {rest} ({count}, {_size(plan.content.size)}) at {REPO_DIR}"
    for step in finish:
        yield from _step(step.name, step.reason, step.reads, step.data, step.runs_repository_code)
    if plan.start:
        yield f"  start: {plan.start} runs before every kernel and server"


def _own(plan: Plan, own: OwnDockerfile) -> Iterator[str]:
    count = f"{plan.content.files} file{'s' * (plan.content.files != 1)}"
    yield "Steps"
    which = "written here" if own.text.startswith("# Written by hpcbinder") else "of the repository, as it is"
    yield f"  {own.path} {which}, with {count} ({_size(plan.content.size)}) as its context"
    yield "      runs code that the repository chooses: sees no credentials and no shared cache"
    for image in own.images:
        yield f"      {image.name} is {image.image}"
    yield "  hpcbinder's entrypoint, manifest and labels on top (level dockerfile of the image contract)"


def _lock(lock: Lock) -> Iterator[str]:
    layers = f"{len(lock.layers)} layer{'s' * (len(lock.layers) != 1)}"
    conda = lock.ecosystem == "conda"
    index = "the channels" if conda else "the package index"
    how = f"resolved from {index}" if lock.origin == "resolved" else f"from {lock.origin}"
    where = f"for {lock.platform}, Python {lock.python}"
    what = "packages" if conda else f"wheels in {layers}"
    yield f"  {lock.ecosystem}: {len(lock.packages)} {what}, {how}, {where}"
    yield f"      {' '.join(f'{package.name}=={package.version}' for package in lock.packages)}"
    if lock.as_of or lock.note:
        yield f"      {_dated(lock)}"
    if lock.unresolved:
        yield f"      without a wheel, and so built in the image's build: {' '.join(lock.unresolved)}"


def _as_of(as_of: AsOf) -> str:
    return f"{day_of(as_of.date)}  ({as_of.reason})" if as_of.date else as_of.reason


def _dated(lock: Lock) -> str:
    if not lock.as_of:
        return lock.note
    return f"as of {day_of(lock.as_of)}" + (f": {lock.note}" if lock.note else "")


def _commit(plan: Plan) -> str:
    none = "none, the folder is in no git repository" if plan.uncommitted else "none, it is a dataset"
    commit = plan.commit or none
    return f"{commit}  ({plan.ref}{', files as they are now' if plan.uncommitted else ''})"


def _origin(origin: str) -> str:
    return "" if origin == "built-in" else f" ({origin})"


def _decision(decision: Decision, width: int) -> str:
    mark = "used" if decision.used else "not used"
    return f"  {decision.file:{width}}  {mark:8}  {decision.pack}: {decision.reason}"


def _step(name: str, reason: str, reads: tuple[str, ...], data: object, own_code: bool) -> Iterator[str]:
    yield f"  {name}: {reason}"
    if reads:
        few = ", ".join(reads[:5])
        yield f"      reads {few}" + (f" and {len(reads) - 5} more files" if len(reads) > 5 else "")
    if isinstance(data, dict) and (packages := data.get("packages")):
        yield f"      packages {' '.join(str(packages).split())}"
    if own_code:
        yield "      runs code that the repository chooses: sees no credentials and no shared cache"


def _size(size: int) -> str:
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"

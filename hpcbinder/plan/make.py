"""From a checkout to a plan."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from hpcbinder.contract import ENV_PREFIX, REPO_DIR, START_VARIABLE
from hpcbinder.errors import DetectError, UsageError
from hpcbinder.model import AsOf, BaseRef, Checkout, Decision, Plan, Python, Stage, Step
from hpcbinder.plan.content import content_of
from hpcbinder.plan.dating import used_date
from hpcbinder.plan.draft import Draft
from hpcbinder.plan.foundation import Stand, bootstrapped
from hpcbinder.plan.hardware import gpu_need, mpi_abi
from hpcbinder.plan.labels import labels_of
from hpcbinder.plan.own import own_plan
from hpcbinder.plan.packs import Pack, Refusal
from hpcbinder.plan.repo import IGNORE_FILES, Repo, open_repo
from hpcbinder.plan.server import SERVER_BIN, SERVER_ENV, server_step
from hpcbinder.plan.shared import CondaResolver, Resolver, Shared
from hpcbinder.plan.suites import SUITES, SUPPORTED, debian_python
from hpcbinder.plan.taking import Choice
from hpcbinder.plan.tree import show

PATH = (
    f"{ENV_PREFIX}/bin",
    SERVER_BIN,
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
)

ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PYTHONNOUSERSITE": "1",
    "VIRTUAL_ENV": ENV_PREFIX,
    "REPO_DIR": REPO_DIR,
    **SERVER_ENV,
    "NVIDIA_VISIBLE_DEVICES": "all",
    "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
}
"""Variables of every image (image contract, points 1, 3 and 6). PYTHONNOUSERSITE: a bound $HOME must not leak packages
in. SERVER_ENV: the server, which has an environment of its own, sees what the repository's environment brings."""

_STAGES = list(Stage)


def make_plan(
    checkout: Checkout,
    *,
    packs: Sequence[Pack],
    suite: str,
    architecture: str,
    without: Collection[str] = (),
    chosen: Collection[str] = (),
    suites: Sequence[str] = SUPPORTED,
    pythons: Sequence[Python] = (),
    resolver: Resolver | None = None,
    conda: CondaResolver | None = None,
    translate_conda: bool = False,
    stand: Stand = bootstrapped,
    outside: Callable[[str, str], str] | None = None,
    as_of: AsOf | None = None,
    mpi: str = "mpich",
) -> Plan:
    """Decide what would be built. Runs no code of the repository, and asks no network but through the resolver.

    Args:
        checkout: The repository's files.
        packs: Buildpacks in the order they plan (`load_packs`).
        suite: Debian release to stand on where the repository does not say; one of `SUITES`.
        suites: Others of these whose Python a repository may ask for, the most wanted first.
        architecture: OCI name (`amd64`, `arm64`).
        without: Names of packs that must not take part.
        chosen: Names of packs that are to take part, and beside them just those that always do (`Choice`); none for
            all.
        pythons: Interpreters besides those of these suites.
        resolver: Finds versions before anything is built; None leaves that to the build.
        conda: Finds conda packages.
        translate_conda: What asks for conda packages is met with Debian's and the Python index's instead.
        stand: Says what an image with the chosen interpreter stands on.
        outside: (name of an image, architecture) -> what it means here, pinned; for a Dockerfile of the repository.
        as_of: Of which time versions are that nothing locks (`date_of`); None for the newest.
        mpi: The MPI of what needs one and does not say which: `mpich` or `openmpi`.

    Raises:
        DetectError: The repository asks for what cannot be done, or in a way that cannot be read; or a pack's step
            would see credentials after code of the repository ran.
        UsageError: No such suite or pack.
    """
    if unknown := [name for name in (suite, *suites) if name not in SUITES]:
        hint = f"build.suite and bases.suites name some of {', '.join(SUITES)}"
        raise UsageError(f"no base of Debian {unknown[0]!r}", hint=hint)
    choice = Choice(packs, chosen, without)
    taking_part = choice.taking_part()
    repo = open_repo(checkout)
    repo.hidden = choice.hidden()
    available = (*map(debian_python, dict.fromkeys((suite, *suites))), *pythons)
    where = f"{checkout.source}#{checkout.subdir}"
    shared = Shared(available, available[0], architecture, where, resolver, conda, stand=stand, outside=outside)
    shared.translate_conda = translate_conda
    shared.as_of = as_of
    shared.mpi_abi = mpi
    taking_part = _alone(taking_part, repo, shared)
    _refuse(taking_part, repo, shared)
    for pack in taking_part:
        pack.prefer(repo, Draft(repo, shared, pack.name, pack.folder))
    for pack in taking_part:
        pack.plan(repo, Draft(repo, shared, pack.name, pack.folder))
        if shared.own is not None:
            break
    if shared.own is not None:
        decided = _decisions(packs, choice, repo, shared)
        refs = tuple(pack.ref for pack in taking_part if pack.name == shared.own_pack)
        undated = AsOf("", f"not used: {shared.own.path} says what is installed") if as_of is not None else None
        plan = own_plan(checkout, shared.own, architecture, refs, (*checkout.notes, *decided), as_of=undated)
        return replace(plan, chosen=choice.chosen, without=choice.without)
    _check_system(shared)
    foundation = shared.foundation or shared.choose(shared.python)
    base = foundation.base
    own = [step for step in foundation.steps if step.stage is not Stage.SERVER]
    steps = (
        *(step for step in foundation.steps if step.stage is Stage.SERVER),
        server_step(
            foundation.server.version,
            foundation.server.executable,
            full=foundation.server.full,
            architecture=architecture,
        ),
        *_ordered([*own, *shared.steps]),
    )
    _check_order(steps, taking_part)
    decided = _decisions(packs, choice, repo, shared)
    choice.check(decided, [step.name for step in steps])
    debian = [package.name for package in shared.system]
    dated = used_date(as_of, shared.dated, shared.locks)
    abi, gpu = mpi_abi(debian, shared.locks), gpu_need(debian, shared.locks)
    used_packs = {step.name.split("/")[0] for step in steps} | {d.pack for d in decided if d.used}
    refs = tuple(pack.ref for pack in taking_part if pack.name in used_packs)
    return Plan(
        name=checkout.name,
        source=checkout.source,
        ref=checkout.ref,
        commit=checkout.commit,
        uncommitted=checkout.uncommitted,
        subdir=checkout.subdir,
        timestamp=checkout.timestamp,
        base=base,
        steps=steps,
        content=content_of(checkout, repo, steps, shared.start),
        env={**ENVIRONMENT, **shared.env, **_start(shared)},
        path=(*shared.path, *PATH),
        start=shared.start,
        labels=labels_of(checkout, refs, base, _labels(base, shared, {"mpi": abi or "", "gpu": gpu or ""})),
        packs=refs,
        decisions=(*checkout.notes, *decided),
        python=shared.python,
        locks=tuple(shared.locks),
        mpi=abi,
        gpu=gpu,
        asked={ecosystem: tuple(sorted(names)) for ecosystem, names in sorted(shared.asked.items())},
        inferred=tuple(shared.inferred),
        chosen=choice.chosen,
        without=choice.without,
        as_of=dated,
    )


def _alone(packs: list[Pack], repo: Repo, shared: Shared) -> list[Pack]:
    """The pack that wants to be alone, if it has something to do; else all of them."""
    for pack in packs:
        mine = next((path for file in pack.files if (path := pack.find(repo, file))), None) if pack.alone else None
        if mine is None:
            continue
        for other in packs:
            for file in (*other.files, *(refusal.file for refusal in other.refusals)):
                path = other.find(repo, file)
                if other is not pack and path is not None and path not in {d.file for d in shared.decisions}:
                    reason = f"{show(mine)} says all that is built (--without {pack.name} builds without it)"
                    shared.decisions.append(Decision(path, False, other.name, reason))
        return [pack]
    return packs


def _refuse(packs: Sequence[Pack], repo: Repo, shared: Shared) -> None:
    """Raise one error for everything that no pack can do."""
    refused: list[tuple[str, Refusal, Pack]] = []
    for pack in packs:
        for refusal in pack.refusals:
            path = pack.find(repo, refusal.file)
            if path is None or (refusal.matches and not refusal.matches.search(repo.read_text(path))):
                continue
            other = next((name for name in refusal.unless if repo.config(name)), None)
            if other is None:
                refused.append((path, refusal, pack))
            else:
                reason = f"{refusal.message}; {other} is used instead"
                shared.decisions.append(Decision(path, False, pack.name, reason))
    if refused:
        path, refusal, _ = refused[0]
        hint = refusal.hint
        if others := sorted({show(other) for other, _, _ in refused[1:]} - {show(path)}):
            leave = " ".join(f"--without {pack.name}" for _, _, pack in refused)
            hint += f"; the same goes for {', '.join(others)}, and {leave} leaves all of them out"
        raise DetectError(refusal.message, where=show(path), hint=hint)


def _check_system(shared: Shared) -> None:
    if shared.system and not shared.system_taken:
        package = shared.system[0]
        raise DetectError(
            f"buildpack {package.pack} needs the Debian package {package.name} ({package.reason}), but no buildpack "
            "that installs Debian packages takes part",
            hint=f"do without --without apt, or add --without {package.pack}",
        )


def _ordered(steps: Sequence[Step]) -> list[Step]:
    """Steps by their stages. Within one, what a pack does before any code of the repository comes before what other
    packs run of it, and all else in the order it was added."""
    ran: set[tuple[Stage, str]] = set()
    keys: dict[str, tuple[int, bool]] = {}
    for step in steps:
        pack = (step.stage, step.name.split("/")[0])
        if step.runs_repository_code:
            ran.add(pack)
        keys[step.name] = (_STAGES.index(step.stage), pack in ran)
    return sorted(steps, key=lambda step: keys[step.name])


def _check_order(steps: Sequence[Step], packs: Sequence[Pack]) -> None:
    """No step that sees credentials runs in an image in which code of the repository ran: that can replace any program.

    A step that is made apart runs in the image as it is before its stage (`apart_point`); joining it sees none.
    """
    for number, step in enumerate(steps):
        if step.runs_repository_code:
            continue
        below = [other for other in steps[:number] if not step.apart or other.stage is not step.stage]
        ran = next((other for other in below if other.runs_repository_code), None)
        if ran is not None:
            name = step.name.split("/")[0]
            raise DetectError(
                f"buildpack {name}: step {step.name} sees the site's credentials, and stands after {ran.name}, which "
                "runs code of the repository",
                where=next((str(pack.folder) for pack in packs if pack.name == name), None),
                hint="it has to run before, in an earlier stage, or without credentials: runs-repository-code = true",
            )


def _decisions(packs: Sequence[Pack], choice: Choice, repo: Repo, shared: Shared) -> tuple[Decision, ...]:
    """What the packs said, and why other files that one could expect to count do not."""
    decisions = list(shared.decisions)
    said = {decision.file for decision in decisions}
    for pack in packs:
        for file in (*pack.files, *(refusal.file for refusal in pack.refusals)):
            overlooked = repo.overlooked(file.name)
            if overlooked is not None and overlooked not in said:
                reason = f"there is a {repo.binder_name} folder, so that config files count only there"
                decisions.append(Decision(overlooked, False, pack.name, reason))
                said.add(overlooked)
    decisions += choice.decisions(repo, said)
    for name in IGNORE_FILES:
        if overlooked := repo.overlooked(name):
            reason = f"there is a {repo.binder_name} folder, so that ignore files count only there"
            decisions.append(Decision(overlooked, False, "content", reason))
    for name in repo.ignore.files:
        decisions.append(Decision(name, True, "content", "its patterns leave files out of the image"))
    for item in repo.tree.items.values():
        if item.kind == "special" and not item.ignored:
            decisions.append(Decision(item.path, False, "content", "a pipe, socket or device has no place in an image"))
    return tuple(sorted(decisions, key=lambda decision: (not decision.used, decision.file, decision.pack)))


def _start(shared: Shared) -> dict[str, str]:
    """How the entrypoint (plan/server/entrypoint) learns of the start script."""
    return {START_VARIABLE: f"{REPO_DIR}/{shared.start}"} if shared.start else {}


def _labels(base: BaseRef, shared: Shared, needs: Mapping[str, str]) -> dict[str, str]:
    return {
        "base": f"{base.name} variant {base.variant}",
        "kernels": " ".join(shared.kernels),
        "start": shared.start or "",
        "as-of": shared.dated.date if shared.dated is not None else "",
        **needs,
    }

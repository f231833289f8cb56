"""From a checkout to a plan."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from hpcbinder.contract import ENV_PREFIX, LABEL_PREFIX, MANIFEST, REPO_DIR
from hpcbinder.errors import DetectError, UsageError
from hpcbinder.model import BaseRef, Checkout, Decision, PackRef, Plan, Python, Stage
from hpcbinder.plan.content import content_of
from hpcbinder.plan.draft import Draft, Resolver, Shared
from hpcbinder.plan.hardware import gpu_need, mpi_abi
from hpcbinder.plan.packs import Pack, Refusal
from hpcbinder.plan.repo import IGNORE_FILES, Repo, open_repo
from hpcbinder.plan.server import SERVER_BIN, SERVER_ENV, server_step
from hpcbinder.plan.suites import BASE_VARIANT, SUITES, debian_pythons
from hpcbinder.plan.tree import show
from hpcbinder.text import printable

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
    pythons: Sequence[Python] = (),
    resolver: Resolver | None = None,
) -> Plan:
    """Decide what would be built. Runs no code of the repository, and asks no network but through the resolver.

    Args:
        checkout: The repository's files.
        packs: Buildpacks in the order they plan (`load_packs`).
        suite: Debian release to stand on where the repository does not say; one of `SUITES`.
        architecture: OCI name (`amd64`, `arm64`).
        without: Names of packs that must not take part.
        pythons: Interpreters besides those of Debian's suites.
        resolver: Finds versions before anything is built; None leaves that to the build.

    Raises:
        DetectError: The repository asks for what cannot be done, or in a way that cannot be read.
        UsageError: No such suite or pack.
    """
    if suite not in SUITES:
        raise UsageError(f"no base of Debian {suite!r}", hint=f"build.suite is one of {', '.join(SUITES)}")
    if unknown := sorted(set(without) - {pack.name for pack in packs}):
        known = ", ".join(sorted(pack.name for pack in packs))
        raise UsageError(f"no buildpack '{printable(unknown[0])}' to leave out", hint=f"there are {known}")
    taking_part = [pack for pack in packs if pack.name not in without]
    repo = open_repo(checkout)
    available = (*debian_pythons(suite), *pythons)
    where = f"{checkout.source}#{checkout.subdir}"
    shared = Shared(available, available[0], architecture, where, resolver)
    _refuse(taking_part, repo, shared)
    for pack in taking_part:
        pack.plan(repo, Draft(repo, shared, pack.name, pack.folder))
    _check_system(shared)
    steps = (
        server_step(SUITES[shared.python.suite].python),
        *sorted(shared.steps, key=lambda step: _STAGES.index(step.stage)),
    )
    decided = _decisions(packs, without, repo, shared)
    debian = [package.name for package in shared.system]
    mpi, gpu = mpi_abi(debian, shared.locks), gpu_need(debian, shared.locks)
    used_packs = {step.name.split("/")[0] for step in steps} | {d.pack for d in decided if d.used}
    refs = tuple(pack.ref for pack in taking_part if pack.name in used_packs)
    base = BaseRef(
        name=f"debian:{shared.python.suite}",
        suite=shared.python.suite,
        python=SUITES[shared.python.suite].python,
        architecture=architecture,
        variant=BASE_VARIANT,
    )
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
        path=PATH,
        start=shared.start,
        labels=_labels(checkout, refs, base, shared, {"mpi": mpi or "", "gpu": gpu or ""}),
        packs=refs,
        decisions=decided,
        python=shared.python,
        locks=tuple(shared.locks),
        mpi=mpi,
        gpu=gpu,
    )


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


def _decisions(packs: Sequence[Pack], without: Collection[str], repo: Repo, shared: Shared) -> tuple[Decision, ...]:
    """What the packs said, and why other files that one could expect to count do not."""
    decisions = list(shared.decisions)
    said = {decision.file for decision in decisions}
    for pack in packs:
        for file in (*pack.files, *(refusal.file for refusal in pack.refusals)):
            overlooked = repo.overlooked(file.name)
            path = pack.find(repo, file)
            if overlooked is not None and overlooked not in said:
                reason = f"there is a {repo.binder_name} folder, so that config files count only there"
                decisions.append(Decision(overlooked, False, pack.name, reason))
                said.add(overlooked)
            if pack.name in without and path is not None and path not in said:
                decisions.append(Decision(path, False, pack.name, f"left out by --without {pack.name}"))
                said.add(path)
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
    return {"HPCBINDER_START": f"{REPO_DIR}/{shared.start}"} if shared.start else {}


def _labels(
    checkout: Checkout, refs: Sequence[PackRef], base: BaseRef, shared: Shared, needs: Mapping[str, str]
) -> dict[str, str]:
    """Labels of the image: the OCI image spec's own (annotations.md) where it has one, else ours."""
    labels = {
        "org.opencontainers.image.title": checkout.name,
        "org.opencontainers.image.source": checkout.source,
        "org.opencontainers.image.revision": checkout.commit or "",
        "org.opencontainers.image.base.name": base.name,
        f"{LABEL_PREFIX}ref": checkout.ref,
        f"{LABEL_PREFIX}subdir": checkout.subdir,
        f"{LABEL_PREFIX}uncommitted": "true" if checkout.uncommitted else "",
        f"{LABEL_PREFIX}buildpacks": " ".join(f"{ref.name}/{ref.version}" for ref in refs),
        f"{LABEL_PREFIX}base": f"{base.name} variant {base.variant}",
        f"{LABEL_PREFIX}kernels": " ".join(shared.kernels),
        f"{LABEL_PREFIX}start": shared.start or "",
        f"{LABEL_PREFIX}manifest": MANIFEST,
        **{f"{LABEL_PREFIX}{name}": value for name, value in needs.items()},
    }
    return {name: _label(value) for name, value in labels.items() if value}


def _label(text: str) -> str:
    """A label's value: one line (a Dockerfile has no way to write another), and not without end."""
    return re.sub(r"[\x85\u2028\u2029]", lambda match: repr(match[0])[1:-1], printable(text))[:4096]

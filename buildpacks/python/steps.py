"""The steps that make the environment: empty, then wheels, then the repository's own projects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

from hpcbinder.plan import Assembly, Draft, Edit, Lock, LockedPackage, Repo, Sources, Stage, TextFile

from .by_pip import add_environment, add_packages, add_projects, add_server_packages, by_pip, kernel_of
from .project import Project, sources_of
from .requirements import Requirements, requirement_name

ALWAYS = ("ipykernel", "pip")
"""In every environment, in the version the repository's pins leave. pip: postBuild scripts call it."""

PREFIX = "/opt/env"

KERNEL = Edit(
    f"{PREFIX}/share/jupyter/kernels/python3/kernel.json", r'^( *)"python3*",\r?$', rf'\1"{PREFIX}/bin/python",'
)
"""What common.sh does in `fix_kernel`."""

TOGETHER = Sources(together=("always.txt", "requirements.txt"), limits=("constraints.txt", "locked.txt"))
"""What `install_packages` of building.sh does, where something is locked."""

ALONE = Sources(alone="requirements.txt", together=("always.txt",), limits=("constraints.txt",))
"""What locked.sh does."""


def add_empty_environment(repo: Repo, draft: Draft) -> bool:
    """The empty environment, and the step of `add_server_packages`, of which it says whether there is one."""
    beside = add_server_packages(repo, draft)
    if by_pip(draft):
        add_environment(draft)
        return beside
    draft.add_step(
        Stage.INTERPRETER,
        "environment",
        f"an empty environment for Python {draft.python.version}",
        draft.script("environment.sh"),
        env={"HPCBINDER_PYTHON": draft.python.executable},
        assembly=Assembly(prefix=PREFIX, interpreter=draft.python.executable, python=draft.python.full),
    )
    return beside


def unpack(draft: Draft, lock: Lock, asked: set[str], *, beside: bool) -> None:
    """A step for each layer of the lock. The first is made on the empty environment, the others apart from it: what
    has been unpacked already is not there when they run, and their layers hold only what they add. With packages
    `beside` the server, the first is made apart too: it sees credentials, and theirs is code that ran as root."""
    packages = {package.name: package for package in lock.packages}
    so_far: list[LockedPackage] = []
    for number, layer in enumerate(lock.layers, start=1):
        adds = [packages[name] for name in sorted(layer)]
        so_far += adds
        known = [{"name": package.name, "version": package.version} for package in sorted(so_far, key=_by_name)]
        listed = json.dumps(known, separators=(",", ":")) + "\n"
        draft.add_step(
            Stage.DEPENDENCIES,
            "wheels" if number == 1 else f"wheels-{number}",
            f"unpacks {len(adds)} wheel{'s' * (len(adds) != 1)}: {some_names(layer, asked)}",
            draft.script("common.sh") + draft.script("wheels.sh"),
            data={
                "wheels.txt": lines_of(map(locked_line, adds)),
                "python.json": listed,
            },
            caches=["uv"],
            apart=["/opt/env", "/opt/hpcbinder/packages"] if number > 1 or beside else [],
            assembly=Assembly(
                prefix=PREFIX,
                python=draft.python.full,
                wheels="wheels.txt",
                edits=(KERNEL,),
                files={"/opt/hpcbinder/packages/python.json": TextFile(listed)},
            ),
        )


def unpack_unlocked(
    draft: Draft, wanted: Requirements, data: dict[str, str], env: dict[str, str], *, beside: bool
) -> None:
    names = {*ALWAYS, *filter(None, map(requirement_name, wanted.wheels))}
    draft.add_step(
        Stage.DEPENDENCIES,
        "wheels",
        f"unpacks the wheels of {some_names(names, names)}, in versions that are found in the build",
        draft.script("common.sh") + draft.script("unlocked.sh"),
        data={
            "always.txt": data["always.txt"],
            "constraints.txt": data["constraints.txt"],
            "wheels.txt": wanted.text(sources=False),
        },
        env=env,
        caches=["uv"],
        apart=["/opt/env"] if beside else [],
    )


def install_projects(
    repo: Repo, draft: Draft, projects: list[Project], data: dict[str, str], env: dict[str, str]
) -> None:
    targets = [project for project in projects if project.installed]
    if not targets:
        return
    reads: set[str] = set()
    for project in targets:
        reads |= sources_of(repo, project)
        if project.native:
            draft.want_system(project.native, f"{project.title} has {project.native_reason}")
    into_repo = any(project.local.editable for project in targets)
    with_dependencies = any(project.dependencies is None for project in targets)
    words = ", ".join(project.title for project in targets)
    reason = f"installs {words}" + (" with the dependencies only its build can tell" if with_dependencies else "")
    project_env = dict(env)
    for project in targets:
        project_env.update(project.env)
    sources = replace(TOGETHER, targets="targets") if with_dependencies else Sources(targets="targets")
    # In place it needs the repository there; and what nothing was resolved for is found by the build.
    whole = into_repo or (with_dependencies and "locked.txt" not in data)
    draft.add_step(
        Stage.PROJECT,
        "project",
        reason,
        draft.script("common.sh") + draft.script("building.sh") + draft.script("project.sh"),
        reads=reads,
        data={**(data if with_dependencies else {}), "targets": _target_lines(targets)},
        env=project_env,
        runs_repository_code=True,
        into_repo=into_repo,
        assembly=None if whole else from_source(draft, sources),
    )


def install_by_pip(
    repo: Repo,
    draft: Draft,
    wanted: Requirements,
    projects: list[Project],
    *,
    why: str,
    locked: Sequence[str] = (),
    more: Sequence[str] = (),
) -> None:
    """All that is installed, where uv does not do.

    Args:
        locked: Lines of a lock.
        more: Names of what comes with it all.
    """
    own = {project.name for project in projects if project.installed and project.name}
    add_packages(draft, wanted, why=why, always=[*ALWAYS[:1], *more], locked=locked, own=own)
    draft.add_kernel(kernel_of(draft.python.version))
    targets = [project for project in projects if project.installed]
    for project in targets:
        if project.native:
            draft.want_system(project.native, f"{project.title} has {project.native_reason}")
    if targets:
        reads = {path for project in targets for path in sources_of(repo, project)}
        add_projects(draft, targets, reads, _target_lines(targets))


def from_source(draft: Draft, sources: Sources) -> Assembly | None:
    """What a step leaves that builds something; None where only running the whole step tells."""
    if draft.provided is not None or draft.python.origin != "debian":
        return None
    return Assembly(prefix=PREFIX, python=draft.python.full, edits=(KERNEL,), sources=sources)


def _target_lines(targets: Iterable[Project]) -> str:
    return lines_of(
        "\t".join(("editable" if p.local.editable else "plain", p.local.path or ".", p.local.extras_text))
        for p in targets
    )


def lines_of(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def locked_line(package: LockedPackage) -> str:
    what = f"{package.name} @ {package.url}" if package.url else f"{package.name}=={package.version}"
    return " ".join((what, *(f"--hash={value}" for value in package.hashes)))


def some_names(names: Iterable[str], first: set[str]) -> str:
    """Some names in words, those of `first` before others."""
    ordered = sorted(names, key=lambda name: (name not in first, name))
    return ", ".join(ordered[:8]) + (f" and {len(ordered) - 8} more" if len(ordered) > 8 else "")


def _by_name(package: LockedPackage) -> str:
    return package.name

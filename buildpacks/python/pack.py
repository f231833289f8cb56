"""Python: an environment at /opt/env that holds what the repository asks for, and an IPython kernel in any case.

The layers, rarely changing first: the empty environment; wheels; what has no wheel; and the repository's own project.
What can be had as wheels is resolved before anything is built, and the lock unpacked in as many layers as it has.
Wheels are only unpacked, so that their steps may use the site's credentials and the shared download cache; all that
runs code of the repository's choosing comes after, without either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hpcbinder.plan import (
    DetectError,
    Draft,
    Lock,
    OldMetadataError,
    Repo,
    Stage,
    has_old_metadata,
    show,
)

from .beside import join
from .by_pip import by_pip, refused_by_uv
from .described import add_missing
from .kernel import oldest_kernel
from .locked import Locked
from .mpi import mpi_library, mpi_tools
from .project import Project, analyse, is_project
from .recipe import Recipe, choose_recipe
from .requirements import Local, Requirements, requirement_name
from .steps import (
    ALONE,
    ALWAYS,
    TOGETHER,
    add_empty_environment,
    from_source,
    install_by_pip,
    install_projects,
    lines_of,
    locked_line,
    some_names,
    unpack,
    unpack_unlocked,
)
from .target import Target
from .usual import add_usual
from .version import choose_python, settle


def plan(repo: Repo, draft: Draft) -> None:
    recipe = choose_recipe(repo, draft)
    wanted = Requirements() if recipe.is_lock else join(repo, draft, recipe, recipe.requirements())
    projects = _projects(repo, draft, recipe, wanted.locals)
    note, likely = "", None
    if draft.provided is None and not (draft.translated is not None and draft.translated.python):
        note, likely = choose_python(
            repo, draft, projects, pipenv=recipe.pipenv(), lock=recipe.made_for(), pins=(recipe.path, wanted.lines)
        )
    if recipe.is_lock:
        if likely is not None:
            likely.tell(draft)
        _follow(repo, draft, recipe, projects, note)
        return
    if draft.provided is not None and not (wanted.lines or wanted.locals or wanted.options):
        wanted.files.clear()
    for file, use in wanted.files.items():
        draft.used(file, f"{use}; {note}" if note and file == recipe.path else use)
    _say(draft, projects)
    for project in projects:
        wanted.add(project.dependencies or (), project.indexes)
    if draft.provided is None and not (wanted.lines or wanted.locals or projects):
        wanted.add([found.requirement for found in draft.inferred_python()], ())
    elif recipe.kind or draft.provided is not None:
        there = draft.provided.packages if draft.provided is not None else ()
        add_usual(repo, draft, wanted, {*there, *(project.name for project in projects)})
    later = add_missing(repo, draft, projects, wanted, ALWAYS) if projects and not recipe.kind else []
    draft.asks("python", [requirement_name(line) for line in (*wanted.lines, *later)])
    file = recipe.path or next((file for project in projects for file in project.files), "imports")
    names = [requirement_name(line) for line in wanted.lines]
    uv = draft.provided is not None or not by_pip(draft)
    always = (*_always(draft), *mpi_library(repo, draft, names, file=file, wheels=uv))
    if draft.provided is not None and not (wanted.lines or projects or always):
        return
    if draft.provided is None and by_pip(draft):
        if likely is not None:
            likely.tell(draft)
        add_empty_environment(repo, draft)
        install_by_pip(repo, draft, wanted, projects, why=f"uv knows no Python {draft.python.version}")
        return
    try:
        lock = settle(draft, likely, lambda: _lock(draft, wanted, projects, always))
    except OldMetadataError as error:
        why = f"uv refuses what {refused_by_uv(error.message)} says of itself"
        wanted.add(later, ())
        add_empty_environment(repo, draft)
        install_by_pip(repo, draft, wanted, projects, why=why, more=[name for name in always if name not in ALWAYS])
        return
    beside = draft.provided is None and add_empty_environment(repo, draft)
    mpi_tools(draft, lock)
    data = {
        "always.txt": lines_of(always),
        "constraints.txt": lines_of(wanted.constraints),
        # What only its build tells has to go together with it: the build finds the versions of both.
        "requirements.txt": wanted.text(sources=True) + lines_of(later),
    }
    env = {"UV_INDEX_STRATEGY": "unsafe-best-match"} if wanted.has_extra_index else {}
    if wanted.prereleases:
        env["UV_PRERELEASE"] = "allow"
    if lock is None or _built(lock, wanted) is not None or any(project.installed for project in projects):
        env |= draft.dated(lock)
    if lock is not None:
        data["locked.txt"] = lines_of(f"{package.name}=={package.version}" for package in lock.packages)
        if lock.packages:
            unpack(draft, lock, {*always, *(requirement_name(line) for line in wanted.lines)}, beside=beside)
    elif not wanted.has_indexes:
        unpack_unlocked(draft, wanted, data, env, beside=beside)
    if (reason := _built(lock, wanted)) is not None:
        draft.add_step(
            Stage.DEPENDENCIES,
            "packages",
            reason,
            draft.script("common.sh") + draft.script("building.sh") + draft.script("packages.sh"),
            data=data,
            env=env,
            runs_repository_code=True,
            assembly=None if lock is None or wanted.no_binary else from_source(draft, TOGETHER),
        )
    draft.add_kernel("python3")
    if projects:
        install_projects(repo, draft, projects, data, env)


def _follow(repo: Repo, draft: Draft, recipe: Recipe, projects: list[Project], note: str) -> None:
    """Install what a lock of the repository says, and the kernel beside it."""
    locked = recipe.locked(Target(draft.python, draft.architecture))
    notes = (f"{locked.count} package{'s' * (locked.count != 1)}", *locked.notes, *([note] if note else []))
    draft.used(locked.path, "; ".join(notes))
    draft.asks("python", locked.asked)
    for project in projects:
        if not locked.project and project.local.path == "" and recipe.has_project:
            project.installed = False
            project.files = dict.fromkeys(project.files, "describes what the lock is of, which is no package itself")
    named = [local for local in locked.locals if local.path not in {project.local.path for project in projects}]
    projects = [*projects, *(analyse(repo, local, locked=True) for local in named)]
    editable = {local.path: local for local in locked.locals if local.editable}
    for project in projects:
        project.local = editable.get(project.local.path, project.local)
    _say(draft, projects)

    beside = add_empty_environment(repo, draft)
    if by_pip(draft):
        _follow_by_pip(repo, draft, locked, projects, why=f"uv knows no Python {draft.python.version}")
        return
    names = list(map(requirement_name, locked.pins))
    more = mpi_library(repo, draft, names, file=locked.path)
    try:
        lock, build, always = _complete(draft, locked, projects, (*ALWAYS, *more))
    except OldMetadataError as error:
        why = f"uv refuses what {refused_by_uv(error.message)} says of itself"
        _follow_by_pip(repo, draft, locked, projects, why=why, more=more)
        return
    mpi_tools(draft, lock)
    unpack(draft, lock, {*ALWAYS, *map(requirement_name, locked.pins)}, beside=beside)
    if build or always:
        names = [requirement_name(line) for line in (*build, *always)]
        draft.add_step(
            Stage.DEPENDENCIES,
            "packages",
            f"installs what has to be built or comes from elsewhere: {some_names(names, set(names))}",
            draft.script("common.sh") + draft.script("building.sh") + draft.script("locked.sh"),
            data={
                "always.txt": lines_of(always),
                "constraints.txt": lines_of(locked.pins),
                "requirements.txt": lines_of((*(f"--extra-index-url {url}" for url in locked.indexes), *build)),
            },
            env={**({"UV_INDEX_STRATEGY": "unsafe-best-match"} if locked.indexes else {}), **draft.dated()},
            runs_repository_code=True,
            assembly=None if locked.indexes else from_source(draft, ALONE),
        )
    draft.add_kernel("python3")
    install_projects(repo, draft, projects, {}, draft.dated() if any(project.installed for project in projects) else {})


def _follow_by_pip(
    repo: Repo, draft: Draft, locked: Locked, projects: list[Project], *, why: str, more: Sequence[str] = ()
) -> None:
    rest = Requirements(lines=list(locked.build), constraints=list(locked.pins))
    rest.options += [f"--extra-index-url {url}" for url in locked.indexes]
    lines = [*map(locked_line, locked.lock.packages), *locked.open]
    install_by_pip(repo, draft, rest, projects, why=why, locked=lines, more=more)


def _complete(
    draft: Draft, locked: Locked, projects: list[Project], wanted: tuple[str, ...]
) -> tuple[Lock, list[str], list[str]]:
    """What a lock of the repository leaves open: which wheels the index has of packages of which it knows hashes alone,
    and the kernel.

    Args:
        wanted: What must be there besides.

    Returns:
        The complete lock; lines of what is built, each for itself; what the build installs with all it depends on.

    Raises:
        OldMetadataError: uv refuses what a package says of itself, and an old pip would not.
        DetectError: There is no kernel that fits the lock.
    """
    known = {requirement_name(line) for line in (*locked.pins, *locked.build)}
    always = [name for name in wanted if name not in known]
    own = {project.name for project in projects if project.installed and project.name}
    try:
        rest = draft.resolve(
            [*locked.open, *always], constraints=locked.pins, elsewhere={*locked.elsewhere, *own}, keep=False
        )
    except DetectError as error:
        if isinstance(error, OldMetadataError) and has_old_metadata(draft.python.version):
            raise
        hint = error.hint if locked.open else "lock ipykernel too, in a version that fits the others"
        raise DetectError(error.message, where=error.where or show(locked.path), hint=hint) from None
    build = list(locked.build)
    if rest is None:
        return draft.add_lock(locked.lock), [*build, *locked.open], always
    here = {package.name: package for package in (*rest.packages, *locked.lock.packages)}
    lines = {requirement_name(line): line for line in locked.open}
    build += [lines[name] for name in rest.unresolved if name in lines]
    more = [name for name in rest.unresolved if name not in lines]
    lock = replace(
        locked.lock,
        packages=tuple(here[name] for name in sorted(here)),
        layers=(tuple(sorted(here)),),
        unresolved=tuple(sorted({*locked.lock.unresolved, *rest.unresolved})),
    )
    return draft.add_lock(lock), build, more


def _always(draft: Draft) -> tuple[str, ...]:
    there = draft.provided.packages if draft.provided is not None else {}
    return tuple(name for name in ALWAYS if name not in there)


def _lock(draft: Draft, wanted: Requirements, projects: list[Project], always: tuple[str, ...]) -> Lock | None:
    """What all wheels are unpacked by; None if the build is to find the versions. What an environment has that another
    pack makes is kept as it is.

    Raises:
        DetectError: No versions fit together.
    """
    if wanted.has_indexes or wanted.builds_all:
        return None
    there = draft.provided.packages if draft.provided is not None else {}
    try:
        lock = draft.resolve(
            [*wanted.from_index, *always],
            constraints=[
                *wanted.plain_constraints,
                *(f"{name}=={version}" for name, version in sorted(there.items())),
                *oldest_kernel(wanted, always),
            ],
            elsewhere={
                *wanted.elsewhere,
                *(project.name for project in projects if project.installed and project.name),
            },
            prereleases=wanted.prereleases,
            keep=draft.provided is None,
        )
        if lock is None or draft.provided is None:
            return lock
        more = tuple(package for package in lock.packages if package.name not in there)
        lock = replace(lock, packages=more, layers=(tuple(package.name for package in more),) if more else ())
        return draft.add_lock(lock) if more else lock
    except DetectError as error:
        if isinstance(error, OldMetadataError) and draft.provided is None and has_old_metadata(draft.python.version):
            raise
        where = error.where or next(iter((*wanted.files, *(file for p in projects for file in p.files))), None)
        ways = [error.hint] if error.hint else []
        if draft.inferred_python():
            ways.append("these are what the code imports: hpcbinder init --no-lock writes them down, to correct")
        raise DetectError(error.message, where=where and show(where), hint="; ".join(ways) or None) from None


def _projects(repo: Repo, draft: Draft, recipe: Recipe, named: Iterable[Local]) -> list[Project]:
    """The projects to install: those the recipe names, the root's where it belongs to it, and those they depend on."""
    locals_: dict[str, Local] = {}
    for local in named:
        same = locals_.get(local.path, local)
        extras = tuple(sorted({*same.extras, *local.extras}))
        locals_[local.path] = Local(local.path, extras, same.editable or local.editable, same.where)
    for name in ("pyproject.toml", "setup.py"):
        path = repo.root_config(name)
        if path is None:
            continue
        if "" in locals_ or (recipe.has_project and is_project(repo)):
            locals_.setdefault("", Local("", (), False, path))
        elif recipe.has_project:
            draft.unused(path, "describes no project: it has neither [project] nor what a build could start from")
        else:
            draft.unused(path, f"{show(recipe.path)}, which says what is installed, does not name it")
    projects: dict[str, Project] = {}
    pending = list(locals_.values())
    while pending:
        local = pending.pop(0)
        if local.path not in projects:
            projects[local.path] = analyse(repo, local, locked=recipe.is_lock)
            pending += projects[local.path].locals
    return list(projects.values())


def _say(draft: Draft, projects: Iterable[Project]) -> None:
    for project in projects:
        for file, reason in project.files.items():
            draft.used(file, reason)


def _built(lock: Lock | None, wanted: Requirements) -> str | None:
    """Why there is something to be built, None if there is not."""
    if lock is None:
        why = "the repository has an index of its own" if wanted.has_indexes else "nothing was resolved ahead"
        return f"installs what has no wheel and all else that is missing: {why}"
    names = {*lock.unresolved, *filter(None, wanted.elsewhere)}
    if not (names or wanted.has_sources):
        return None
    what = some_names(names, set(lock.unresolved)) if names else "what comes from URLs"
    return f"installs what has to be built or comes from a URL: {what}"

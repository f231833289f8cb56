"""Python: an environment at /opt/env that holds what the repository asks for, and an IPython kernel in any case.

The layers, rarely changing first: the empty environment; wheels; what has no wheel, bytecode and the kernel; and the
repository's own project. Wheels are only unpacked, so that their step may use the site's credentials and the shared
download cache; all that runs code of the repository's choosing comes after, without either.
"""

from __future__ import annotations

from hpcbinder.plan import DetectError, Draft, Repo, Stage, show

from .project import Project, analyse, is_project
from .requirements import Local, Requirements, read_requirements, requirement_name
from .version import choose_python

ALWAYS = ("ipykernel", "pip")
"""In every environment, in the version the repository's pins leave. pip: postBuild scripts call it."""

LARGE = 16 << 20
"""Bytes above which a file outside every package is taken to be data, which no installation copies."""

LOCKS = ("uv.lock", "poetry.lock", "pdm.lock", "pylock.toml")


def plan(repo: Repo, draft: Draft) -> None:
    path = repo.config("requirements.txt")
    wanted = read_requirements(repo, path) if path else Requirements()
    for file, reason in wanted.files.items():
        draft.used(file, reason)
    projects = _projects(repo, draft, wanted)
    choose_python(repo, draft, projects)
    for name in LOCKS:
        if lock := repo.root_config(name):
            draft.unused(lock, "locks are not read yet: what it is the lock of is resolved anew")

    for project in projects:
        wanted.add_project(project)
    env = {"UV_INDEX_STRATEGY": "unsafe-best-match"} if wanted.has_extra_index else {}
    if wanted.prereleases:
        env["UV_PRERELEASE"] = "allow"
    names = _names(wanted)
    _environment(draft)
    common = {
        "always.txt": "".join(f"{name}\n" for name in ALWAYS),
        "constraints.txt": "".join(f"{line}\n" for line in wanted.constraints),
    }
    data = {**common, "requirements.txt": wanted.text(sources=True)}
    draft.add_step(
        Stage.DEPENDENCIES,
        "wheels",
        f"unpacks the wheels of {names}",
        draft.script("wheels.sh"),
        data={**common, "wheels.txt": wanted.text(sources=False)},
        env=env,
        caches=["uv"],
    )
    draft.add_step(
        Stage.DEPENDENCIES,
        "packages",
        "builds what has no wheel, compiles bytecode, installs the kernel",
        draft.script("packages.sh"),
        data=data,
        env=env,
        runs_repository_code=True,
    )
    draft.add_kernel("python3")
    if projects:
        _install(repo, draft, projects, data, env)


def _environment(draft: Draft) -> None:
    draft.add_step(
        Stage.INTERPRETER,
        "environment",
        f"an empty environment for Python {draft.python.version}",
        draft.script("environment.sh"),
    )


def _names(wanted: Requirements) -> str:
    names = sorted({name for line in wanted.wheels if (name := requirement_name(line))} | set(ALWAYS))
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _projects(repo: Repo, draft: Draft, wanted: Requirements) -> list[Project]:
    """The projects to install: those requirements.txt names, and the root's."""
    locals_: dict[str, Local] = {}
    for local in wanted.locals:
        same = locals_.get(local.path, local)
        extras = tuple(sorted({*same.extras, *local.extras}))
        locals_[local.path] = Local(local.path, extras, same.editable or local.editable, same.where)
    for name in ("pyproject.toml", "setup.py"):
        path = repo.root_config(name)
        if path is None:
            continue
        if "" in locals_ or is_project(repo):
            locals_.setdefault("", Local("", (), False, path))
        else:
            draft.unused(path, "describes no project: it has neither [project] nor what a build could start from")
    projects = []
    for local in locals_.values():
        project = analyse(repo, local)
        projects.append(project)
        for file, reason in project.files.items():
            draft.used(file, reason)
    return projects


def _install(repo: Repo, draft: Draft, projects: list[Project], data: dict[str, str], env: dict[str, str]) -> None:
    targets = [project for project in projects if project.installed]
    if not targets:
        return
    reads: set[str] = set()
    for project in targets:
        reads |= _sources(repo, project)
        if project.native:
            draft.want_system(project.native, f"{project.title} has {project.native_reason}")
    into_repo = any(project.local.editable for project in targets)
    with_dependencies = any(project.dependencies is None for project in targets)
    words = ", ".join(project.title for project in targets)
    reason = f"installs {words}" + (" with the dependencies only its build can tell" if with_dependencies else "")
    lines = [
        "\t".join(("editable" if p.local.editable else "plain", p.local.path or ".", p.local.extras_text))
        for p in targets
    ]
    project_env = dict(env)
    for project in targets:
        project_env.update(project.env)
    draft.add_step(
        Stage.PROJECT,
        "project",
        reason,
        draft.script("project.sh"),
        reads=reads,
        data={
            **(data if with_dependencies else {}),
            "targets": "".join(f"{line}\n" for line in lines),
            "dependencies": "yes\n" if with_dependencies else "no\n",
        },
        env=project_env,
        runs_repository_code=True,
        into_repo=into_repo,
    )


def _sources(repo: Repo, project: Project) -> set[str]:
    """Files an installation may need: all but notebooks, and but large files that lie in no package."""
    if project.local.is_archive:
        return {project.local.path}
    items = [item for item in repo.files(project.local.path) if not item.path.endswith(".ipynb")]
    if not items:
        raise DetectError("has no files to install", where=show(project.local.path or "."))
    packages = {item.path.rpartition("/")[0] for item in items if item.path.endswith("/__init__.py")}
    return {item.path for item in items if item.size <= LARGE or _inside(item.path, packages)}


def _inside(path: str, folders: set[str]) -> bool:
    parts = path.split("/")
    return any("/".join(parts[:end]) in folders for end in range(1, len(parts)))

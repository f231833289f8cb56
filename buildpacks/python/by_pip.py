"""The last pip that runs on a Python, where uv does not do: for Pythons it does not know (2.7, 3.5), and for packages
whose metadata it refuses (pandas before 0.25: `pytz (>=2011k)`). Versions are found in the build, by pip.

2.7 and 3.5 get an environment of virtualenv 20.21.1, the last that makes these; it runs on the server's Python, and
brings pip 20.3.4 (https://virtualenv.pypa.io/en/latest/changelog.html, 20.22).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from hpcbinder.plan import PYTHON_2, DetectError, Draft, Repo, Stage, served_by_uv, show

from .project import Project
from .requirements import Requirements, read_requirements, requirement_name

PIPS = {"3.6": "21.3.1", "3.7": "24.0"}
"""Python -> the last pip that runs on it, for the environments that uv makes."""

LENIENT = "24.0"
"""The last pip that takes versions which PEP 440 does not allow (https://pip.pypa.io/en/stable/news/, 24.1)."""

SERVER_FILE = "requirements3.txt"

LIMITS = {
    "2.7": ("ipykernel<5", "ipython<6", "jupyter-client<6", "tornado<6", "setuptools<45"),
    "3.5": ("ipykernel<5.6", "ipython<7.10", "jupyter-client<7", "tornado<6.2", "setuptools<51"),
    "3.6": ("ipykernel<6", "ipython<7.17", "jupyter-client<7.2", "setuptools<60"),
}
"""Python -> the last series of what a kernel needs: not every mirror says which Pythons a release is for."""


def by_pip(draft: Draft) -> bool:
    """Whether the chosen interpreter is one that only pip serves."""
    return not served_by_uv(draft.python.version)


def refused_by_uv(message: str) -> str:
    """Name of the package whose metadata uv refuses, out of its words."""
    match = re.search(
        r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:[<>=!~][^\s,]*)?(?:,[^\s,]+)* ha(?:s|ve) invalid metadata", message
    )
    return show(match[1]) if match else "a package"


def kernel_of(python: str) -> str:
    """Name of the kernel that ipykernel installs for a Python `X.Y`."""
    return "python2" if python == PYTHON_2 else "python3"


def add_environment(draft: Draft) -> None:
    """The step that makes the environment of a Python that uv does not know."""
    draft.add_step(
        Stage.INTERPRETER,
        "environment",
        f"an empty environment for Python {draft.python.version}; the notebook server's own is on a newer one",
        draft.script("virtualenv.sh"),
        data={"virtualenv.txt": draft.script("virtualenv.txt")},
        env={"HPCBINDER_PYTHON": draft.python.executable},
        caches=["uv"],
    )


def add_server_packages(repo: Repo, draft: Draft) -> bool:
    """What requirements3.txt asks for, where the server's Python is another one than the environment's: repo2docker has
    it so for Pythons that its server does not run on.

    What the environment gets is laid over it, the kernel `python3` and the programs too, so that this comes first.

    Returns:
        Whether there is a step for it, which runs code of the repository's choosing: what sees credentials after it has
        to be made apart.

    Raises:
        DetectError: A line that is not understood or not allowed.
    """
    path = repo.config(SERVER_FILE)
    if path is None:
        return False
    if not by_pip(draft) and draft.python.version not in PIPS:
        draft.unused(path, f"it is for the server beside a kernel of Python 2.7 to 3.7, not {draft.python.version}")
        return False
    wanted = read_requirements(repo, path)
    if wanted.locals:
        raise DetectError("names a project of the repository, which is for the kernel", where=wanted.locals[0].where)
    for file, use in wanted.files.items():
        draft.used(file, f"{use}, for the notebook server and a kernel of its Python")
    names = sorted({*filter(None, map(requirement_name, wanted.lines)), "ipykernel"})
    draft.add_step(
        Stage.DEPENDENCIES,
        "server",
        f"installs {_some(names)} beside the notebook server, in versions that are found in the build",
        draft.script("server-packages.sh"),
        data={
            "always.txt": "ipykernel\n",
            "constraints.txt": _lines(wanted.constraints),
            "requirements.txt": wanted.text(sources=True),
        },
        env={"UV_INDEX_STRATEGY": "unsafe-best-match"} if wanted.has_extra_index else {},
        runs_repository_code=True,
    )
    draft.add_kernel("python3")
    return True


def add_packages(
    draft: Draft,
    wanted: Requirements,
    *,
    why: str,
    always: Sequence[str],
    locked: Sequence[str] = (),
    own: Collection[str] = (),
) -> None:
    """The step that installs with pip what is wanted, and the kernel.

    Args:
        why: Why pip does.
        always: Names of what every environment has.
        locked: Lines of a lock, with hashes, that are installed as they are.
        own: Names of the repository's own projects.
    """
    version = draft.python.version
    limits = [line for line in LIMITS.get(version, ()) if requirement_name(line) not in _pinned(wanted, locked)]
    dated = draft.constraints_as_of(
        [*(line.partition(" --hash")[0] for line in wanted.from_index if requirement_name(line) not in own), *always],
        constraints=[*wanted.plain_constraints, *limits],
    )
    pip = [] if by_pip(draft) else [f"pip=={PIPS.get(version, LENIENT)}", "setuptools<60", "wheel"]
    names = sorted({*filter(None, map(requirement_name, (*wanted.lines, *locked))), *always})
    dating = ", as of the date" if dated else ""
    draft.add_step(
        Stage.DEPENDENCIES,
        "packages",
        f"installs {_some(names)} with pip, in versions that are found in the build{dating}: {why}",
        draft.script("by-pip.sh") + draft.script("by-pip-packages.sh"),
        data={
            "always.txt": _lines(always),
            "constraints.txt": _lines([*wanted.constraints, *limits, *dated]),
            "locked.txt": _lines(locked),
            "pip.txt": _lines(pip),
            "requirements.txt": wanted.text(sources=True) + ("--pre\n" if wanted.prereleases else ""),
        },
        env={"HPCBINDER_PYTHON": draft.python.executable},
        runs_repository_code=True,
    )


def add_projects(draft: Draft, projects: Sequence[Project], reads: Collection[str], targets: str) -> None:
    """The step that installs the repository's own projects with pip."""
    into_repo = any(project.local.editable for project in projects)
    env = {"HPCBINDER_PYTHON": draft.python.executable}
    for project in projects:
        env.update(project.env)
    draft.add_step(
        Stage.PROJECT,
        "project",
        f"installs {', '.join(project.title for project in projects)} with pip",
        draft.script("by-pip.sh") + draft.script("by-pip-project.sh"),
        reads=reads,
        data={"constraints.txt": _lines(LIMITS.get(draft.python.version, ())), "targets": targets},
        env=env,
        runs_repository_code=True,
        into_repo=into_repo,
    )


def _pinned(wanted: Requirements, locked: Sequence[str]) -> set[str]:
    """Names that the repository has something to say of itself."""
    return {requirement_name(line) for line in (*wanted.lines, *wanted.constraints, *locked)}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)

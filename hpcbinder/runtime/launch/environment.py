"""Which variables of the host enter an image."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

ALWAYS = ("USER", "LOGNAME", "JPY_SESSION_NAME")
"""Who runs it (an image names nobody), and the notebook it belongs to."""

_DECIDED_ELSEWHERE = frozenset({"HOME", "PWD", "OLDPWD", "TMPDIR", "SHLVL", "_", "JPY_PARENT_PID"})
"""HOME, PWD and TMPDIR are the runtime's to say. JPY_PARENT_PID makes ipykernel end itself as soon as its parent is not
that process, which it never is in a container; the launcher watches the front end instead."""

_HOST_ONLY = (
    "PATH",
    "LD_*",
    "PYTHON*",
    "VIRTUAL_ENV*",
    "CONDA_*",
    "MAMBA_*",
    "JUPYTER_*",
    "IPYTHON*",
    "R_*",
    "JULIA_*",
    "PERL5LIB",
    "BASH_*",
    "ENV",
    "MODULE*",
    "LMOD_*",
    "_LMFILES_*",
    "XDG_*",
    "*_PROXY_COMMAND",
    "SLURM_JWT",
)
"""What points at programs and settings of the host, and Slurm's token, with which whoever has it submits jobs as this
person (auth/jwt): only an exact name lets one of these in, never a glob."""


_NOT_FOR_NODES = re.compile(
    r"(SLURM|SLURMD|SBATCH|SRUN|SALLOC)_(?!(CONF|JWT)\b).*|JUPYTERHUB_.*|CONFIGPROXY_.*|JPY_(?!SESSION_NAME$).*"
)
"""What would make the job a step of the one that the server runs in, and the server's own credentials, of which
JPY_API_TOKEN is one; a kernel may know which notebook it is of."""

_LOCALE = ("LANG", "LANGUAGE", "LC_*")
"""An image that says which locale it has is not told another one: the host's is rarely installed in it."""


def allowed(environ: Mapping[str, str], patterns: Iterable[str], image_env: Mapping[str, str]) -> dict[str, str]:
    """The variables of `environ` that enter.

    Args:
        environ: The host's environment.
        patterns: Names, or globs (`SLURM_*`). A glob never matches what steers the host's own software.
        image_env: What the image sets; the host's value counts, but for the locale.
    """
    own_locale = "LANG" in image_env or "LC_ALL" in image_env
    exact, globs = set(ALWAYS), []
    for pattern in patterns:
        if any(c in pattern for c in "*?["):
            globs.append(pattern)
        else:
            exact.add(pattern)
    chosen = {}
    for name, value in environ.items():
        if name in _DECIDED_ELSEWHERE or not _NAME.fullmatch(name) or (own_locale and _matches(name, _LOCALE)):
            continue
        if name in exact or (_matches(name, globs) and not _matches(name, _HOST_ONLY)):
            chosen[name] = value
    return chosen


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def host_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with HOME, USER and LOGNAME, which runtimes insist on and a batch system may leave out."""
    complete = dict(environ)
    try:
        person = pwd.getpwuid(os.getuid())
        home, user = person.pw_dir, person.pw_name
    except KeyError:
        home, user = "/", str(os.getuid())
    for name, value in (("HOME", home), ("USER", user), ("LOGNAME", user)):
        if not complete.get(name):
            complete[name] = value
    return complete


def without_own_containers(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables without those for the person's own containers: what APPTAINER_BIND shows there, or APPTAINERENV_TOKEN
    tells, is not meant for code of a repository."""
    return {name: value for name, value in environ.items() if not name.startswith(("APPTAINER", "SINGULARITY"))}


def for_nodes(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with which another job is asked for, from within one or not."""
    return {name: value for name, value in environ.items() if not _NOT_FOR_NODES.fullmatch(name)}

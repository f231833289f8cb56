"""start: a program that gets the real command as arguments, sets what it likes, and ends with `exec "$@"`."""

from __future__ import annotations

import re

from hpcbinder.plan import DetectError, Draft, Repo, show

_OF_REPO2DOCKER = ("CONDA_DIR", "KERNEL_PYTHON_PREFIX", "NB_PYTHON_PREFIX")
"""Variables of its images (buildpacks/base.py, conda/__init__.py) that name the folder of the environment."""


def plan(repo: Repo, draft: Draft) -> None:
    path = repo.config("start")
    if path is None:
        return
    where = show(path)
    if not repo.is_file(path):
        raise DetectError("start is not a regular file", where=where, hint="put the script itself there")
    text = repo.read_text(path)
    repo.check_script(path)
    if "$@" not in text and "$*" not in text:
        draft.used(path, 'runs before every kernel and server; it never says exec "$@", so nothing may run after it')
    else:
        draft.used(path, "runs before every kernel and server")
    for name in _OF_REPO2DOCKER:
        if re.search(rf"\b{name}\b", text):
            draft.set_env(name, "/opt/env")
    if "/home/jovyan" in text:
        draft.unused(path, "what it looks for in /home/jovyan, a folder of repo2docker's images, is in /srv/repo")
    draft.set_start(path)

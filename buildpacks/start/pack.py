"""start: a program that gets the real command as arguments, sets what it likes, and ends with `exec "$@"`."""

from __future__ import annotations

from hpcbinder.plan import DetectError, Draft, Repo, show


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
    draft.set_start(path)

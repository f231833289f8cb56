"""postBuild: a program that runs once, at the end of the build, in the repository's folder.

A comment among its first lines may name what it reads:

    # hpcbinder: reads = environment.json data/

It then runs before the repository's content is put in place, with just these files (and all below these folders), and
only again when one of them changes: an edited notebook costs nothing.
"""

from __future__ import annotations

import posixpath
import re

from hpcbinder.plan import DetectError, Draft, Repo, Stage, show

_HEADER = re.compile(r"#\s*hpcbinder:\s*(?P<key>[A-Za-z-]*)\s*=?\s*(?P<value>.*)")


def plan(repo: Repo, draft: Draft) -> None:
    path = repo.config("postBuild")
    if path is None:
        return
    text = repo.read_text(path)
    shebang = repo.check_script(path)
    data = {"path": path, "interpreter": "" if shebang else "bash"}
    header = _reads(text, show(path))
    note = "" if shebang else " (with bash: its first line names no interpreter)"
    if header is None:
        draft.used(path, f"runs at the end of the build, again whenever a file changes{note}")
        draft.add_step(
            Stage.FINISH,
            "run",
            "runs postBuild",
            draft.script("run.sh"),
            reads={path, repo.resolve(path)},
            data=data,
            runs_repository_code=True,
        )
        return
    line, words = header
    reads = {path, repo.resolve(path)}
    for word in words:
        reads |= _resolve(repo, word, f"{show(path)}:{line}")
    draft.used(path, f"runs before the content, again only when what it says it reads changes{note}")
    draft.add_step(
        Stage.PREPARE,
        "run",
        f"runs postBuild, which reads {' '.join(words) or 'nothing'}",
        draft.script("run.sh"),
        reads=reads,
        data=data,
        runs_repository_code=True,
        into_repo=True,
    )


def _reads(text: str, where: str) -> tuple[int, list[str]] | None:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.startswith("#"):
            if line.strip():
                return None
            continue
        match = _HEADER.match(line)
        if match is None:
            continue
        if match["key"] != "reads":
            raise DetectError(
                f"unknown setting '{show(match['key'])}'",
                where=f"{where}:{number}",
                hint="there is only: # hpcbinder: reads = FILE FOLDER/",
            )
        return number, match["value"].split()
    return None


def _resolve(repo: Repo, word: str, where: str) -> set[str]:
    """The files that a word of the header means: a file, or all below a folder."""
    path = posixpath.normpath(word)
    if path.startswith(("/", "../")) or path == "..":
        raise DetectError(f"reads {show(word)}, which is outside the repository", where=where)
    if path == ".":
        return {item.path for item in repo.files()}
    if repo.is_dir(path):
        return {item.path for item in repo.files(path)}
    if repo.tree.kind(path) in ("file", "symlink"):
        return {path}
    raise DetectError(f"reads {show(word)}, which is no file or folder of the repository", where=where)

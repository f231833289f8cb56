"""postBuild: a program that runs once, at the end of the build, in the repository's folder.

A comment among its first lines may name what it reads:

    # hpcbinder: reads = environment.json data/

It then runs before the repository's content is put in place, with just these files (and all below these folders), and
only again when one of them changes: an edited notebook costs nothing.

Most are written for repo2docker's images: they find its variables and paths, and programs in front of those of the same
name (`jupyter`, `conda`, `pip`) that know what to do with its commands of old (docs/buildpacks.md).
"""

from __future__ import annotations

import codecs
import posixpath
import re

from hpcbinder.plan import DetectError, Draft, Repo, Stage, show

_SHIMS = ("jupyter", "conda", "pip")
_BASH = re.compile(r"(?:/|\s|^)bash(?:\s|$)")
_HEADER = re.compile(r"#\s*hpcbinder:\s*(?P<key>[A-Za-z-]*)\s*=?\s*(?P<value>.*)")

_FOUND = (
    (re.compile(r"\bjupyter[ -](lab (build|clean)|labextension|nbextension|serverextension)\b"), "a command of old"),
    (re.compile(r"\b(conda|mamba|micromamba) +(install|create|update|env +\w+)\b"), "conda, which is not there"),
    (re.compile(r"\b(wget|curl|git +clone|pip3? +install|npm +(install|ci)|jlpm)\b"), "the network"),
)
"""What a line calls, and what to say of it."""


def plan(repo: Repo, draft: Draft) -> None:
    path = repo.config("postBuild")
    if path is None:
        return
    text = repo.read_text(path)
    first = text.partition("\n")[0]
    shebang = first[2:].strip() if first.startswith("#!") else ""
    data = {"path": path, "interpreter": "" if shebang else "bash"}
    data |= {name: draft.script(name) for name in _SHIMS}
    notes = [] if shebang else ["with bash: its first line names no interpreter"]
    if not shebang or _BASH.search(shebang):
        data["trace"] = draft.script("trace")
    if _from_windows(repo, path):
        data["windows"] = "yes\n"
        notes.append("as if it did not have the line ends of Windows")
    notes += _calls(text)
    header = _reads(text, show(path))
    note = f" ({'; '.join(notes)})" if notes else ""
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


def _calls(text: str) -> list[str]:
    """Which lines call what, for a person."""
    lines = [(number, line.partition("#")[0]) for number, line in enumerate(text.split("\n"), start=1)]
    said = []
    for pattern, what in _FOUND:
        found = [(number, match[0]) for number, line in lines if (match := pattern.search(line))]
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            said.append(f"line {found[0][0]} calls for {what}: {' '.join(found[0][1].split())}{more}")
    return said


def _from_windows(repo: Repo, path: str) -> bool:
    """Whether there is something in the file's bytes that no interpreter takes: line ends or a mark of Windows."""
    with repo.tree.open(path) as file:
        raw = file.read()
    return b"\r\n" in raw or raw.startswith(codecs.BOM_UTF8)


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

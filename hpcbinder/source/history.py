"""When the files that say what runs were changed last, of a repository's history without its files' contents.

A README's correction, years after the notebooks were written, says nothing of the versions they were written for.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from pathlib import Path

from hpcbinder.errors import FetchError, HpcbinderError
from hpcbinder.model import Change
from hpcbinder.source.command import GitCommand
from hpcbinder.source.repository import Repository
from hpcbinder.text import one_line

_NOTEBOOKS = ("*.ipynb", "*.rmd", "*.qmd")
_CODE = (
    *("*.py", "*.pyx", "*.pxd", "*.r", "*.jl", "*.m", "*.sh", "*.js", "*.ts", "*.java", "*.scala", "*.rs", "*.go"),
    *("*.c", "*.h", "*.cc", "*.cpp", "*.cxx", "*.hpp", "*.cu", "*.f", "*.f77", "*.f90", "*.f95", "*.f03", "*.f08"),
    *("*.hs", "*.lua", "*.pl", "*.sql", "*.stan", "makefile", "cmakelists.txt"),
)
_CONFIGURATION = (
    *("requirements*.txt", "requirements*.in", "constraints*.txt", "pyproject.toml", "setup.cfg", "pipfile"),
    *("pipfile.lock", "poetry.lock", "uv.lock", "pylock*.toml", ".python-version", "environment*.yml"),
    *("environment*.yaml", "conda-lock*.yml", "pixi.toml", "pixi.lock", "apt.txt", "runtime.txt", "postbuild"),
    *("start", "description", "renv.lock", "project.toml", "manifest.toml", "default.nix", "flake.nix"),
    *("flake.lock", "spack.yaml", "spack.lock", "dockerfile", "singularity", "*.def", "devcontainer.json"),
)
COUNTS = (*_NOTEBOOKS, *_CODE, *_CONFIGURATION)
"""Names (globs, in lower case) of what counts: notebooks, code and configuration."""

NOT = ("doc/**/conf.py", "docs/**/conf.py", "docs/**/requirements*.txt", "doc/**/requirements*.txt")
"""Of these what only builds a documentation."""

_DEPTHS = (2, 60, 1500)
"""Commits that are looked at, as long as none of fewer is the one. Two tell whether the newest itself is."""

_PATIENCE = 180.0
"""Seconds for one piece of history."""

_WITHOUT_FILTER = "filtering not recognized"
"""git's warning (fetch-pack.c) about a server that would send the contents of all files along."""


def remote_change(repository: Repository, subdir: str, committed: int) -> Change:
    """The newest change in a fetched repository. What cannot be had of its history is said in `doubt`.

    Args:
        repository: One whose commit has been fetched, without its history.
        subdir: Only what is below this folder counts; "" for all.
        committed: Unix time (s) of the commit.
    """
    git, commit = repository.git, repository.commit
    head = Change(committed, f"commit {commit[:12]}")
    for depth in _DEPTHS:
        if not (git.git_dir / "shallow").exists():
            break
        if depth > _DEPTHS[0]:
            repository.reporter.phase("fetch", f"asking for the newest {depth} commits, without their files")
        try:
            result = repository.deepen(depth, timeout=_PATIENCE)
        except FetchError as error:
            return _doubting(head, f"its history cannot be had: {error.message}")
        if result.status != 0:
            why = one_line(result.stderr.splitlines()[-1], 150) if result.stderr else "git says nothing"
            return _doubting(head, f"its history cannot be had: {why}")
        found = _newest(git, commit, subdir)
        if found is None or not found[2]:
            break
        if _WITHOUT_FILTER in result.stderr:
            return _doubting(head, "the server does not give a history without the contents of all files")
    return _change(git, commit, subdir, head)


def local_change(git: GitCommand, commit: str, folder: Path, subdir: str, committed: int) -> Change:
    """The newest change in a folder whose objects `git` reads: committed, or lying there since.

    Args:
        git: Git with a folder of ours for all but the objects.
        folder: The root of the working tree.
        subdir, committed: As `remote_change`.
    """
    found = _change(git, commit, subdir, Change(committed, f"commit {commit[:12]}"))
    try:
        newer = max(_uncommitted(git, commit, folder, subdir), default=None)
    except (HpcbinderError, OSError) as error:
        message = error.message if isinstance(error, HpcbinderError) else str(error.strerror)
        return _doubting(found, f"git cannot say what is not committed: {message}")
    if newer is None or newer[0] <= found.time:
        return found
    return Change(newer[0], f"{_shown(newer[1])}, not committed")


def folder_change(folder: Path) -> Change:
    """The newest change in a folder of no git repository: the time of its newest file that counts."""
    newest, name, waiting = 0.0, "", [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.name == ".git":
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif counts(entry.name) and (when := entry.stat(follow_symlinks=False).st_mtime) > newest:
                        newest, name = when, os.path.relpath(entry.path, folder)
        except OSError:
            continue  # the scan of the files says what is wrong with them
    what = f"{_shown(name)}, by its time on the disk" if name else "no notebooks, code or configuration"
    return Change(min(max(int(newest), 0), 2**32 - 1), what)


def counts(name: str) -> bool:
    """Whether a file of this name is a notebook, code or configuration."""
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in COUNTS)


def _change(git: GitCommand, commit: str, subdir: str, head: Change) -> Change:
    try:
        found = _newest(git, commit, subdir)
    except FetchError as error:
        return _doubting(head, f"its history cannot be read: {error.message}")
    if found is None:
        return _doubting(head, "its history holds no notebooks, code or configuration")
    id_, seconds, oldest = found
    when = min(max(seconds, 0), 2**32 - 1)
    if oldest:
        return Change(when, f"commit {id_[:12]}", "no newer one changed any; what is older was not looked at")
    named = git.run(
        ["diff-tree", "--no-commit-id", "--name-only", "--root", "-r", "-z", id_, "--", *_pathspecs(subdir)]
    )
    file = named.stdout.partition("\0")[0] if named.status == 0 else ""
    return Change(when, f"{_shown(file)} in {id_[:12]}" if file else f"commit {id_[:12]}")


def _newest(git: GitCommand, commit: str, subdir: str) -> tuple[str, int, bool] | None:
    """The newest commit that changed what counts: its id, its time (s), and whether what came before it is not here.
    None if there is none.

    Raises:
        FetchError: The history cannot be read.
    """
    result = git.run(["rev-list", "--max-count=1", "--timestamp", commit, "--", *_pathspecs(subdir)], timeout=_PATIENCE)
    if result.status != 0:
        lines = result.stderr.splitlines()
        raise FetchError(one_line(lines[-1].removeprefix("fatal: "), 150) if lines else "git says nothing")
    match = re.match(r"(-?\d+) ([0-9a-f]{40,64})$", result.stdout.strip())
    if match is None:
        return None
    shallow = git.git_dir / "shallow"
    ends = shallow.read_text("ascii").split() if shallow.exists() else []
    return match[2], int(match[1]), match[2] in ends


def _uncommitted(git: GitCommand, commit: str, folder: Path, subdir: str) -> Iterator[tuple[int, str]]:
    """(time (s), path) of what counts and differs from the commit, or is not in it and not ignored either."""
    attributes = git.git_dir / "info" / "attributes"
    attributes.parent.mkdir(exist_ok=True)
    attributes.write_text("* -filter\n")  # filters are programs that a repository would choose
    for arguments in (
        ["read-tree", commit],
        ["ls-files", "-z", "--modified", "--others", "--exclude-standard", "--", *_pathspecs(subdir)],
    ):
        result = git.run(arguments, work_tree=folder, timeout=_PATIENCE)
        if result.status != 0:
            raise FetchError(one_line((result.stderr.splitlines() or ["git says nothing"])[-1], 150))
    for path in filter(None, result.stdout.split("\0")):
        try:
            status = os.lstat(f"{os.fspath(folder)}/{path}")
        except OSError:
            continue  # deleted: nothing says when
        yield min(max(int(status.st_mtime), 0), 2**32 - 1), path


def _pathspecs(subdir: str) -> list[str]:
    """What counts, as git wants it (gitglossary(7), "pathspec")."""
    below = re.sub(r"([*?\[\\])", r"\\\1", subdir) + "/" if subdir else ""
    return [
        *(f":(top,glob,icase){below}**/{pattern}" for pattern in COUNTS),
        *(f":(top,glob,icase,exclude){below}**/{pattern}" for pattern in NOT),
    ]


def _doubting(change: Change, doubt: str) -> Change:
    return Change(change.time, change.what, doubt)


def _shown(path: str) -> str:
    return one_line(path, 100)

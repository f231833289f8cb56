"""A folder of this machine, taken as it is.

Its `.git` is read, never used: no git command runs with that repository's configuration, which can name programs to
run (`core.fsmonitor`, filters, hooks). So nothing is said about which files differ from the commit.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from hpcbinder.errors import FetchError, HpcbinderError, UsageError
from hpcbinder.model import Checkout
from hpcbinder.regular import open_regular
from hpcbinder.source.command import GitCommand
from hpcbinder.source.history import folder_change, local_change
from hpcbinder.source.location import Folder, is_folder, slug
from hpcbinder.source.tree import commit_time, enter

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF = re.compile(r"refs/[^\x00-\x20\x7f]+")


def take_folder(folder: Folder, *, ref: str | None, subdir: str, workdir: Path, history: bool = False) -> Checkout:
    """A checkout whose root is the folder itself: nothing is copied.

    Args:
        history: Find out when what runs was changed last.

    Raises:
        UsageError: A ref was asked for, which a folder cannot give.
        FetchError: It cannot be read, or the subdirectory is not there.
    """
    if ref is not None:
        raise UsageError(
            "a local folder is taken as it is, so --ref cannot be given",
            where=str(folder.path),
            hint=f"for a commit of its repository name file://{folder.path}",
        )
    if not os.access(folder.path, os.R_OK | os.X_OK):
        raise FetchError("the folder cannot be read", where=str(folder.path))
    root, subdir = enter(folder.path, subdir)
    commit, seconds, changed = None, None, None
    repository = _find(folder.path)
    if repository is not None:
        git_dir, common_dir = repository
        commit = _head(git_dir, common_dir)
        if commit is not None:
            git = _reading(commit, common_dir, workdir)
            seconds = commit_time(git, commit) if git is not None else None
            if history and git is not None and seconds is not None:
                changed = local_change(git, commit, folder.path.absolute(), subdir, seconds)
    if history and changed is None:
        changed = folder_change(root)
    return Checkout(
        root=root,
        name=slug(folder.path.name, *subdir.split("/")[-1:]),
        source=str(folder.path),
        ref="working tree",
        commit=commit,
        uncommitted=True,
        tree=None,
        subdir=subdir,
        timestamp=_newest(root) if seconds is None else seconds,
        changed=changed,
    )


def _find(folder: Path) -> tuple[Path, Path] | None:
    """The git folder and, for a worktree, the one it shares (gitrepository-layout(5))."""
    git_dir = folder / ".git"
    if not is_folder(git_dir):
        text = _small(git_dir)
        if text is None or not text.startswith("gitdir: "):
            return None
        git_dir = folder / text.removeprefix("gitdir: ").strip("\n")
        if not is_folder(git_dir):
            return None
    common = _small(git_dir / "commondir")
    return git_dir, git_dir / common.strip("\n") if common else git_dir


def _head(git_dir: Path, common_dir: Path) -> str | None:
    """The commit that HEAD is; None before the first one, or where refs are kept in another way (reftable)."""
    text = (_small(git_dir / "HEAD") or "").strip()
    for _ in range(5):
        if _COMMIT.fullmatch(text):
            return text
        name = text.removeprefix("ref: ")
        if name == text or not _REF.fullmatch(name) or ".." in name.split("/"):
            return None
        loose = _small(git_dir / name) or _small(common_dir / name)
        text = (loose or _packed(common_dir, name) or "").strip()
    return None


def _packed(common_dir: Path, name: str) -> str | None:
    text = _small(common_dir / "packed-refs", limit=64 << 20) or ""
    match = re.search(rf"^([0-9a-f]{{40,64}}) {re.escape(name)}$", text, re.MULTILINE)
    return match[1] if match else None


def _reading(commit: str, common_dir: Path, workdir: Path) -> GitCommand | None:
    """Git that reads the objects of that repository, but none of its configuration. None if there is no git."""
    git_dir = workdir / "head.git"
    try:
        GitCommand(git_dir).init(sha256=len(commit) == 64)
        # Where the history ends, if it was fetched in part (gitrepository-layout(5)).
        ends = _small(common_dir / "shallow", limit=16 << 20) or ""
        if ends and all(_COMMIT.fullmatch(line) for line in ends.split()):
            (git_dir / "shallow").write_text(ends, encoding="ascii")
    except (HpcbinderError, OSError):
        return None
    return GitCommand(git_dir, objects=(common_dir / "objects").absolute())


def _small(path: Path, limit: int = 65536) -> str | None:
    """The text of a regular file; None for anything else (a FIFO would hang us)."""
    try:
        file = open_regular(path, follow=True)
    except (OSError, ValueError):
        return None
    if file is None:
        return None
    with file:
        if os.fstat(file.fileno()).st_size > limit:
            return None
        return file.read(limit).decode("utf-8", "surrogateescape")


def _newest(root: Path) -> int:
    """Time (s) of the newest file, without a recursion that a deep tree could exhaust."""
    newest, waiting = 0.0, [os.fspath(root)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.name == ".git":
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        newest = max(newest, entry.stat(follow_symlinks=False).st_mtime)
        except OSError:
            continue  # the scan of the files says what is wrong with them
    return min(max(int(newest), 0), 2**32 - 1)

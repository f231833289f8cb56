"""What fetched and local sources share: entering the subdirectory, the time of a commit."""

from __future__ import annotations

from pathlib import Path

from hpcbinder.errors import FetchError, UsageError
from hpcbinder.source.command import GitCommand
from hpcbinder.text import one_line


def enter(root: Path, subdir: str) -> tuple[Path, str]:
    """The folder `subdir` below `root`, and its real path relative to it (links in the repository resolved).

    Args:
        subdir: As `parse_subdir` returns it.

    Raises:
        UsageError: A link leads out of the repository.
        FetchError: It is not there or not a folder.
    """
    if not subdir:
        return root, ""
    shown = f"'{one_line(subdir, 120)}'"
    try:
        base, real = root.resolve(), (root / subdir).resolve()
    except (OSError, RuntimeError) as error:  # a loop of links
        raise FetchError(f"the subdirectory {shown} cannot be entered") from error
    if not real.is_relative_to(base) or ".git" in real.relative_to(base).parts:
        raise UsageError(f"the subdirectory {shown} leads out of the repository")
    try:
        if not real.is_dir():
            problem = "is not a folder" if real.exists() else "is not in the repository"
            raise FetchError(f"the subdirectory {shown} {problem}")
    except OSError as error:
        raise FetchError(f"the subdirectory {shown} cannot be entered: {error.strerror}") from error
    relative = real.relative_to(base).as_posix()
    return root / relative, "" if relative == "." else relative


def commit_time(git: GitCommand, commit: str) -> int | None:
    """When `commit` was made (Unix seconds, as squashfs can hold them), None if git cannot read it."""
    result = git.run(["rev-list", "--no-walk", "--timestamp", commit, "--"])
    seconds = result.stdout.partition(" ")[0]
    if result.status != 0 or not seconds.lstrip("-").isdecimal():
        return None
    return min(max(int(seconds), 0), 2**32 - 1)

"""Folders that appear whole, are replaced whole, and vanish whole, among others that are not ours."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from hpcbinder.errors import RegisterError

_TEMPORARY = ".hpcbinder-"
_STALE_AFTER = 3600.0
"""Seconds after which a temporary folder belongs to a process that was killed."""
_TRIES = 20


def owner(folder: Path) -> str | None:
    """The id of the image that the kernelspec in `folder` belongs to, None if it is not ours (or there is none)."""
    try:
        spec = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))
        found = spec["metadata"]["hpcbinder"]["id"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def place(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Make `folder` hold exactly these files (path below it -> content), world-readable.

    Returns:
        False if it already was so.

    Raises:
        RegisterError: Something that is not ours is there, or nothing can be written.
    """
    if _same(folder, files):
        return False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent.parent)
        fresh = _temporary(folder)
        try:
            _write(fresh, files)
            _swap(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise RegisterError(
            f"cannot register a kernel: {error.strerror}", where=str(error.filename or folder)
        ) from error
    return True


def remove(folder: Path) -> None:
    """Remove a folder of ours, whole at once for whoever looks.

    Raises:
        RegisterError: It cannot be removed.
    """
    aside = _temporary(folder)
    try:
        folder.rename(aside)
        shutil.rmtree(aside)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise RegisterError(f"cannot remove a kernel: {error.strerror}", where=str(error.filename or folder)) from error


def _temporary(folder: Path) -> Path:
    # Not beside the kernelspecs: Jupyter would list it.
    return folder.parent.parent / f"{_TEMPORARY}{folder.name}.{secrets.token_hex(6)}"


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.parent.chmod(0o755)
        with path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.chmod(0o644)


def _swap(fresh: Path, folder: Path) -> None:
    for _ in range(_TRIES):
        try:
            fresh.rename(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        # Only one that is ours is moved out of the way. Another process may be doing the same: what it has just taken
        # away is nobody's, and what it puts there is ours.
        if owner(folder) is not None:
            remove(folder)
        elif folder.exists() and owner(folder) is None:
            break
    raise RegisterError(
        "a kernel of this name is there and was not made by hpcbinder", where=str(folder), hint="give another --name"
    )


def _same(folder: Path, files: Mapping[str, bytes]) -> bool:
    if folder.is_symlink() or owner(folder) is None:
        return False
    try:
        return all((folder / name).read_bytes() == content for name, content in files.items())
    except OSError:
        return False


def _sweep(parent: Path) -> None:
    limit = time.time() - _STALE_AFTER
    for path in parent.glob(f"{_TEMPORARY}*"):
        if path.is_dir() and not path.is_symlink() and path.lstat().st_mtime < limit:
            shutil.rmtree(path, ignore_errors=True)

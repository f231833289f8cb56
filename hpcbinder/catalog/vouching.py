"""Whose word a file of a site's store is.

What is taken from there runs as whoever takes it, and its name says what it is: nothing in a squashed layer proves that
it was made of the wheel it is called after. So a file counts if only those can have put it there whom the site lets
write to its store, and not if anybody could.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

PLACES = ("", "bases", "conda", "conda/layers", "debian", "images", "layers", "wheels", "wheels/layers")
"""Folders of a store whose files others use."""


def vouched(path: Path, store: Path) -> bool:
    """Whether a file below a site's store can be taken.

    Who may write there by the modes of its folders (their owner, their group) is trusted. In a folder where everybody
    may write, and only remove what is theirs (its sticky bit), files of root, of the store's owner and of this user
    count; in one without that bit none do, for names can be exchanged there.

    Args:
        path: A file, or a folder whose files are meant; false if there is none.
        store: Folder of the store, somewhere above it.
    """
    try:
        file = path.stat()
        modes = [folder.stat().st_mode for folder in path.parents if folder == store or store in folder.parents]
        owners = (0, os.geteuid(), store.stat().st_uid)
    except OSError:
        return False
    if file.st_mode & stat.S_IWOTH:
        return False
    open_to_all = [mode for mode in modes if mode & stat.S_IWOTH]
    return not open_to_all or all(mode & stat.S_ISVTX for mode in open_to_all) and file.st_uid in owners


def open_places(store: Path) -> list[str]:
    """Folders of a store that everybody may write to, relative to it."""
    found = []
    for name in PLACES:
        try:
            if (store / name).stat().st_mode & stat.S_IWOTH:
                found.append(name or ".")
        except OSError:
            continue
    return found

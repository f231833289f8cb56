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
    count, in folders of theirs, and no link does: whose it is can have it lead elsewhere later. In one without that bit
    none do, for names can be exchanged there.

    Args:
        path: A file, or a folder whose files are meant; false if there is none.
        store: Folder of the store, somewhere above it.
    """
    try:
        top = store.stat()
        owners = (0, os.geteuid(), top.st_uid)
        mode = top.st_mode
        open_to_all = False
        for name in [folder for folder in reversed(path.parents) if store in folder.parents] + [path]:
            if mode & stat.S_IWOTH:
                if not mode & stat.S_ISVTX:
                    return False
                open_to_all = True
            found = name.lstat()
            is_link = stat.S_ISLNK(found.st_mode)
            if open_to_all and (is_link or found.st_uid not in owners):
                return False
            mode = name.stat().st_mode if is_link else found.st_mode
    except OSError:
        return False
    return not mode & stat.S_IWOTH


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

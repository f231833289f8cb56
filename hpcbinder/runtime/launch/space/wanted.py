"""What a person's space is to hold, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..values import LaunchError


@dataclass(frozen=True)
class Space:
    """What is copied, and to where.

    Attributes:
        root: Folder of the person's copies, `templates.expand` says of what it is made.
        name: The folder's name in it, as far as that is free.
        source: Where the repository came from: with `ref` and `subdir` it says which folder is this repository's.
        ref: What was asked for of it: `HEAD`, a branch, a tag, a commit.
        subdir: Folder of the repository that the image is of, "" for all of it.
        commit: Full id, "" if it is of none.
        image: The image's id.
        repository: Where the content is in the image.
        history: Where the image says what its commit is (`contract.COMMIT`).
        origin: URL to push to, "" for none.
        caches: Folder for caches and runtime files, made as `root` is; "" for the node's own ($TMPDIR, /tmp).
        purged_after: Days after which the site removes files of `root` that are not used; 0 for never.
    """

    root: str
    name: str
    source: str
    ref: str = "HEAD"
    subdir: str = ""
    commit: str = ""
    image: str = ""
    repository: str = "/srv/repo"
    history: str = "/opt/hpcbinder/commit.json"
    origin: str = ""
    caches: str = ""
    purged_after: int = 0


@dataclass(frozen=True)
class Prepared:
    """A person's copy, ready to be worked in.

    Attributes:
        folder: Absolute path on the host: the working directory of what is started.
        notices: What a person should know, one line each.
        caches: Folder of the host for caches and runtime files, "" for the node's own.
        made: The copy was made just now.
        inode: The folder's number: what is started there is started in no other (`pinned`). 0 for any.
        above: Where somebody of a group may move it, the number of the folder that it is in. 0 elsewhere.
    """

    folder: str
    notices: tuple[str, ...] = ()
    caches: str = ""
    made: bool = False
    inode: int = 0
    above: int = 0

    def described(self, description: Mapping[str, Any]) -> dict[str, Any]:
        """A description (`starting.prepare`) whose command starts in this folder, and keeps its caches where they
        belong (profile.sh)."""
        described = dict(description)
        if self.inode:
            described["folder"] = {"path": self.folder, "inode": self.inode, "above": self.above}
        if self.caches:
            described["env"] = {**description["env"], "HPCBINDER_TMPDIR": self.caches}
            described["binds"] = [*description["binds"], self.caches]
        return described


def read_space(values: Mapping[str, Any]) -> Space:
    """The space of a launch.json.

    Raises:
        LaunchError: It is none.
    """
    try:
        space = Space(**values)
    except TypeError as error:
        raise LaunchError(f"launch.json describes no space: {error}") from None
    texts = {name: value for name, value in values.items() if name != "purged_after"}
    if not all(isinstance(value, str) and "\0" not in value for value in texts.values()):
        raise LaunchError("launch.json describes no space: what should be text is not")
    if type(space.purged_after) is not int or not 0 <= space.purged_after < 100_000:
        raise LaunchError("launch.json describes no space: purged_after is not a number of days")
    parts = space.subdir.split("/") if space.subdir else []
    if any(part in ("", ".", "..") or part.lower() == ".git" for part in parts):
        raise LaunchError(f"not a folder of a repository: {space.subdir!r}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", space.name):
        raise LaunchError(f"not a name for a folder: {space.name!r}")
    return space


def lab_path(path: str = "") -> str:
    """The path of a JupyterLab's URL that opens a file or folder of its root: `/lab/tree/a%20folder/fit.ipynb`.

    Args:
        path: Below the space's folder, "" for the folder itself.

    Raises:
        LaunchError: It leads elsewhere.
    """
    if not path:
        return "/lab"
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or not path.isprintable():
        raise LaunchError(f"not a path in the repository: {path!r}")
    return f"/lab/tree/{quote(path)}"

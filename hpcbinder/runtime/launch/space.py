"""A person's space: a copy of an image's repository that is theirs, made at the first launch and kept.

For whoever starts a server or a command where it is to run::

    space = read_space(description["space"])
    prepared = prepare(space, description, environ=os.environ)
    for notice in prepared.notices: ...                    # one line each, for the person
    description = prepared.described(description)          # variables and binds for the caches
    command = main.prepare(description, environ=os.environ, cwd=prepared.folder, argv=…)

`prepare` raises LaunchError with one line for a person. `lab_path` says where JupyterLab opens.

The folders lie in the space's root, beside each other; what is known of them is in `ROOT/.hpcbinder`: NAME.json for
each, a lock, and what is being made. A copy is made there and then renamed, so a folder is there whole or not at all,
and nothing that has a name is ever written to, but for files that a site's purge took away.
"""

# Paths are text here: they become words of a command line, and may be no text at all.
# ruff: noqa: PTH103, PTH104, PTH112, PTH116, PTH118, PTH120

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from . import clone
from .copying import copy_out
from .environment import host_environment
from .private import others_at
from .prologue import environment_after
from .purge import lost, put_back, written
from .records import Record, Records, key_of
from .templates import expand, variables
from .values import LaunchError

_PATIENCE = 1800.0
"""Seconds to wait for another launch that is copying: a large repository on a slow file system."""


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
    """

    folder: str
    notices: tuple[str, ...] = ()
    caches: str = ""
    made: bool = False

    def described(self, description: Mapping[str, Any]) -> dict[str, Any]:
        """A description (`main.prepare`) whose command keeps its caches where they belong (profile.sh)."""
        if not self.caches:
            return dict(description)
        return {
            **description,
            "env": {**description["env"], "HPCBINDER_TMPDIR": self.caches},
            "binds": [*description["binds"], self.caches],
        }


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


def prepare(
    space: Space, description: Mapping[str, Any], *, environ: Mapping[str, str], fresh: bool = False
) -> Prepared:
    """Find a person's copy of the repository, or make it.

    Two launches at once get the same folder. Runs as the person, on the machine where the copy is to be used.

    Args:
        space: What, and where.
        description: How the image is run here (`main.prepare`).
        environ: The person's environment.
        fresh: Make another copy beside the one that is there; launches after this one open the new one.

    Raises:
        LaunchError: There is no place for it, or the content cannot be had.
    """
    environ = host_environment(environ)
    templates = (space.root, space.caches)
    if any(name not in environ for template in templates for name in variables(template)):
        environ = host_environment(environment_after(description["prologue"], environ))
    root = expand(space.root, environ)
    caches = expand(space.caches, environ) if space.caches else ""
    notices = _without_caches(caches) if caches else ()
    _own_folder(root)
    try:
        with Records.opened(root, patience=_PATIENCE) as records:
            found = _Launch(space, description, environ, root, records).folder(fresh)
    except OSError as error:
        raise LaunchError(_said(error, root)) from error
    return replace(found, notices=(*notices, *found.notices), caches="" if notices else caches)


class _Launch:
    """One launch's way to its folder.

    Args:
        space: What is copied.
        description: How the image is run.
        environ: The person's environment.
        root: The space's root, which is there.
        records: What is known of it.
    """

    def __init__(
        self, space: Space, description: Mapping[str, Any], environ: Mapping[str, str], root: str, records: Records
    ) -> None:
        self._space = space
        self._description = description
        self._environ = environ
        self._root = root
        self._records = records
        self._key = key_of(space.source, space.ref, space.subdir)
        self._below = space.subdir if space.origin else ""
        self._notices: list[str] = []

    def folder(self, fresh: bool) -> Prepared:
        known = self._records.of(self._key)
        there = [record for record in known if _is_ours(os.path.join(self._root, record.name))]
        if there and not fresh:
            kept = there[0]
            if kept is not known[0]:
                self._say(f"{self._path(known[0].name)} is no longer there: this is the copy from before it")
                for gone in known[: known.index(kept)]:
                    self._records.forget(gone.name)
            self._keep(kept)
            return self._prepared(kept.name, made=False)
        adopted = None if known or fresh else self._adopted()
        if adopted is not None:
            return self._prepared(adopted, made=False)
        name = self._free_name(beside=there[0].name if there else "", again=known[0].name if known else "")
        made = self._make(name)
        if not made:
            self._say(f"{self._path(name)} was made by another launch just now")
        elif there:
            self._say(f"{self._path(name)} is a fresh copy; {self._path(there[0].name)} stays as it is")
        elif known:
            self._say(f"{self._path(known[0].name)} was no longer there: copied again from the image")
        else:
            self._say(f"copied the repository to {self._path(name)}: it is yours, and kept")
        return self._prepared(name, made=made)

    def _say(self, notice: str) -> None:
        self._notices.append(notice)

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _prepared(self, name: str, *, made: bool) -> Prepared:
        folder = self._path(name)
        if self._below and os.path.isdir(os.path.join(folder, self._below)):
            folder = os.path.join(folder, self._below)
        return Prepared(folder, tuple(self._notices), made=made)

    def _free_name(self, *, beside: str, again: str) -> str:
        """A name that nothing has: the space's, or one with what tells it from another repository's of that name."""
        name = self._space.name
        bases = (name, f"{name}-{self._key[:6]}")
        base = next((base for base in bases if re.fullmatch(rf"{re.escape(base)}(-\d+)?", beside)), bases[1])
        firsts = () if beside else (*filter(None, [again]), *bases)
        for candidate in (*firsts, *(f"{base}-{number}" for number in range(2, 10_000))):
            record = self._records.get(candidate)
            if not os.path.lexists(self._path(candidate)) and (record is None or record.key == self._key):
                return candidate
        raise LaunchError(f"{self._root} holds thousands of copies of {name}: remove some")

    def _adopted(self) -> str | None:
        """A clone that the person made at the place of the copy is as good as one."""
        path, origin = self._path(self._space.name), self._space.origin
        if not origin or self._records.get(self._space.name) is not None:
            return None
        if not _is_ours(path) or clone.origin_of(path) != origin:
            return None
        self._records.put(Record(self._space.name, self._key, "", "", time.time()))
        self._say(f"{path} is a clone of the repository already: it stays as it is")
        return self._space.name

    def _make(self, name: str) -> bool:
        """Copy the repository to a new folder; False if another launch was faster."""
        with self._records.making() as room:
            content = self._content(room, self._path(name))
            seen = written(content) if self._space.purged_after else {}
            record = Record(name, self._key, self._space.commit, self._space.image, time.time(), seen)
            # The record first: without a folder it means nothing yet, while a folder that nobody knows is a stranger's.
            self._records.put(record)
            try:
                os.rename(content, self._path(name))
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    return False
                raise
        return True

    def _content(self, room: str, target: str) -> str:
        """What the copy is to hold, made in a folder beside it."""
        space = self._space
        left_out = copy_out(
            self._description,
            room,
            repository=space.repository,
            history=space.history,
            environ=self._environ,
        )
        content, history_file = os.path.join(room, "content"), os.path.join(room, "history")
        if self._below:
            content = _put_below(room, content, self._below)
        if left_out.special:
            self._say(f"{len(left_out.special)} pipes or devices of the repository were left out")
        if left_out.git:
            shown = ", ".join(ascii(path)[1:-1] for path in left_out.git[:3]) + (", …" if left_out.git[3:] else "")
            self._say(f"the image has a .git of its own, which was left out: {shown[:300]}")
        if space.origin:
            history = clone.read_history(history_file)
            if history is not None and history.id != space.commit:
                history = None
            if not clone.write_git(content, history, space.origin):
                self._say("git fetches from its origin what the image has not of the commit, when it is needed")
            if history is None:
                commit = space.commit or "FETCH_HEAD"
                self._say(
                    f"the image does not know its history: `git fetch origin && git reset {commit}` in {target} gets it"
                )
        return content

    def _keep(self, record: Record) -> None:
        space, path = self._space, self._path(record.name)
        if record.commit and space.commit and record.commit != space.commit:
            self._say(
                f"{path} was made of commit {record.commit[:12]}, and stays as it is; the image is of "
                f"{space.commit[:12]}: `git pull` brings the files to it, a fresh copy has them"
            )
        if not space.purged_after:
            return
        gone, seen = lost(path, record.files, space.purged_after)
        if gone and record.image == space.image:
            with self._records.making() as room:
                back = put_back(self._content(room, path), path, gone)
            if back:
                shown = ", ".join(ascii(name)[1:-1] for name in back[:3]) + (", …" if len(back) > 3 else "")
                self._say(
                    f"restored from the image: {len(back)} files of {path} ({shown}) that the site's purge, or you, "
                    f"removed; what lies there unused for {space.purged_after} days is removed"
                )
        elif gone:
            self._say(
                f"{len(gone)} files of {path} are gone, perhaps purged; this image is another one: nothing was restored"
            )
        # Written anew, it is not purged itself.
        self._records.put(replace(record, files=seen))


def _put_below(room: str, content: str, subdir: str) -> str:
    """The copy of a part of a repository at its place in the whole: then git sees it as what it is."""
    whole = os.path.join(room, "whole")
    os.makedirs(os.path.dirname(os.path.join(whole, subdir)))
    os.rename(content, os.path.join(whole, subdir))
    return whole


def _is_ours(path: str) -> bool:
    """True for a folder of ours, or our link to one: in a folder that others share, anybody could plant another."""
    try:
        named, found = os.lstat(path), os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and named.st_uid == found.st_uid == os.geteuid()


def _own_folder(path: str) -> None:
    """Make the root, if it is not there, and see to it that it is the person's, and stays so."""
    mask = os.umask(0o022)
    os.umask(mask | 0o022)
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise LaunchError(f"cannot make {error.filename or path} (space.folder): {error.strerror}") from error
    finally:
        os.umask(mask)
    if not _is_ours(path):
        raise LaunchError(f"{path} (space.folder) belongs to somebody else: a site has {{user}} in it")
    try:
        why = others_at(path)
    except OSError as error:
        raise LaunchError(_said(error, path)) from error
    if why:
        raise LaunchError(f"no copy is kept in {path} (space.folder), which would not stay yours: {why}")


def _without_caches(path: str) -> tuple[str, ...]:
    """Make the folder for caches, which may be one that everybody writes to (profile.sh makes a private one in it), or
    say why it is done without: nobody is kept from work by it."""
    try:
        os.makedirs(path, exist_ok=True)
        why = "" if os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)
    except OSError as error:
        why = error.strerror or str(error)
    return (f"caches stay on this node: {path} (space.caches) cannot be used: {why}",) if why else ()


def _said(error: OSError, root: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"there is no room for a copy of the repository in {root}: {error.strerror}"
    return f"cannot keep a copy of the repository in {root}: {error.strerror or error}"

"""Finding a person's copy of a repository, or making it."""

# Paths are text here: they become words of a command line, and may be no text at all.
# ruff: noqa: PTH103, PTH104, PTH112, PTH118, PTH120

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..environment import host_environment
from ..prologue import environment_after
from ..values import LaunchError
from . import clone
from .copying import copy_out
from .known import as_before
from .place import Place, copy_of, is_own, root_of, without_caches
from .purge import emptied, lost, put_back, written
from .records import Record, Records, key_of
from .templates import expand, variables
from .wanted import Prepared, Space

_PATIENCE = 1800.0
"""Seconds to wait for another launch that is copying: a large repository on a slow file system."""


def prepare(
    space: Space, description: Mapping[str, Any], *, environ: Mapping[str, str], fresh: bool = False
) -> Prepared:
    """Find a person's copy of the repository, or make it.

    Two launches at once get the same folder. Runs as the person, on the machine where the copy is to be used.

    Args:
        space: What, and where.
        description: How the image is run here (`starting.prepare`).
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
    notices = without_caches(caches) if caches else ()
    try:
        with _closed_to_others(), root_of(root) as place:
            as_before(place, environ)
            with Records.opened(place, patience=_PATIENCE) as records:
                found = _Launch(space, description, environ, place, records).folder(fresh)
    except OSError as error:
        raise LaunchError(_said(error, root)) from error
    return replace(found, notices=(*notices, *found.notices), caches="" if notices else caches)


@contextmanager
def _closed_to_others() -> Iterator[None]:
    """Nothing that is made meanwhile can be written to by others, whatever the person's umask lets them."""
    mask = os.umask(0o022)
    os.umask(mask | 0o022)
    try:
        yield
    finally:
        os.umask(mask)


class _Launch:
    """One launch's way to its folder.

    Args:
        space: What is copied.
        description: How the image is run.
        environ: The person's environment.
        root: The space's root, which is held.
        records: What is known of it.
    """

    def __init__(
        self, space: Space, description: Mapping[str, Any], environ: Mapping[str, str], root: Place, records: Records
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
        there = [record for record in known if is_own(self._root.below(record.name).at)]
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
        return self._root.below(name).path

    def _prepared(self, name: str, *, made: bool) -> Prepared:
        with copy_of(self._root.below(name)) as copy:
            folder = copy.below(self._below) if self._below else copy
            if not os.path.isdir(folder.at):
                folder = copy
            return Prepared(folder.path, tuple(self._notices), made=made, inode=folder.inode, above=folder.above)

    def _free_name(self, *, beside: str, again: str) -> str:
        """A name that nothing has: the space's, or one with what tells it from another repository's of that name."""
        name = self._space.name
        bases = (name, f"{name}-{self._key[:6]}")
        base = next((base for base in bases if re.fullmatch(rf"{re.escape(base)}(-\d+)?", beside)), bases[1])
        firsts = () if beside else (*filter(None, [again]), *bases)
        for candidate in (*firsts, *(f"{base}-{number}" for number in range(2, 10_000))):
            record, there = self._records.get(candidate), self._root.below(candidate).at
            if record is not None and record.key != self._key:
                continue
            if not os.path.lexists(there) or (self._space.purged_after and is_own(there) and emptied(there)):
                return candidate
        raise LaunchError(f"{self._root.path} holds thousands of copies of {name}: remove some")

    def _adopted(self) -> str | None:
        """A clone that the person made at the place of the copy is as good as one."""
        place, origin = self._root.below(self._space.name), self._space.origin
        if not origin or self._records.get(self._space.name) is not None:
            return None
        if not is_own(place.at) or clone.origin_of(place.at) != origin:
            return None
        self._records.put(Record(self._space.name, self._key, "", "", time.time()))
        self._say(f"{place.path} is a clone of the repository already: it stays as it is")
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
                os.rename(content, self._root.below(name).at)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    return False
                raise
        return True

    def _content(self, room: Place, target: str) -> str:
        """What the copy is to hold, made in a folder beside it."""
        space = self._space
        left_out = copy_out(
            self._description,
            room,
            repository=space.repository,
            history=space.history,
            environ=self._environ,
        )
        content, history_file = (room.below(name).at for name in ("content", "history"))
        if self._below:
            content = _put_below(room.at, content, self._below)
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
        with copy_of(self._root.below(record.name)) as copy:
            gone, seen = lost(copy.at, record.files, space.purged_after)
            back = []
            if gone and record.image == space.image:
                with self._records.making() as room:
                    back = put_back(self._content(room, path), copy.at, gone)
        if back:
            shown = ", ".join(ascii(name)[1:-1] for name in back[:3]) + (", …" if len(back) > 3 else "")
            self._say(
                f"restored from the image: {len(back)} files of {path} ({shown}) that the site's purge, or you, "
                f"removed; what lies there unused for {space.purged_after} days is removed"
            )
        elif gone and record.image != space.image:
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


def _said(error: OSError, root: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"there is no room for a copy of the repository in {root}: {error.strerror}"
    return f"cannot keep a copy of the repository in {root}: {error.strerror or error}"

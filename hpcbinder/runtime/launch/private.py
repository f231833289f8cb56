"""Whether a folder stays what it was found to be."""

# Paths are text here, as in `space`.
# ruff: noqa: PTH115, PTH116, PTH118, PTH120

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat


def others_at(path: str) -> str:
    """Who else may put something in a folder's place: "" for nobody, else a reason, one line.

    Every part of its path, and of links on the way, is the person's own or root's, and open to no other writers: all
    that is to be found below it could be moved away, and something else be put there. A folder where everybody may
    write but nobody move what is another's (/tmp) is none of them. The home is the account's, however it got there.

    Args:
        path: Absolute, of a folder that is there.

    Raises:
        OSError: It cannot be looked at.
    """
    me, root = os.geteuid(), (0, os.stat("/").st_uid)
    try:
        home = pwd.getpwuid(me).pw_dir
    except KeyError:
        home = ""
    homes = tuple(name.rstrip("/") + "/" for name in (home, os.path.realpath(home)) if home)
    at, closed, links = "/", False, 0
    parts = path.split("/")[::-1]
    while parts:
        part = parts.pop()
        if part in ("", "."):
            continue
        if part == "..":
            at, closed = os.path.dirname(at), False
            continue
        there = os.path.join(at, part)
        about = os.lstat(there)
        above_home = any(name.startswith(there + "/") for name in homes)
        if about.st_uid not in (me, *root) and not above_home:
            return f"{there} belongs to somebody else"
        if stat.S_ISLNK(about.st_mode):
            links += 1
            if links > 40:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(there)
            parts.extend(target.split("/")[::-1])
            if target.startswith("/"):
                at, closed = "/", False
            continue
        mode = about.st_mode
        shared = mode & 0o002 or (mode & 0o020 and about.st_gid != 0 and not _has_one_member(about.st_gid))
        if shared and not mode & stat.S_ISVTX and not above_home and not closed:
            return f"others can write to {there} (chmod go-w)"
        # What others cannot even enter, they cannot write to further down.
        closed = closed or not mode & 0o011
        at = there
    return ""


def _has_one_member(gid: int) -> bool:
    """Whether it is the person's own group, as most systems give everybody one (pam_umask(8), usergroups)."""
    try:
        me, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == me.pw_gid and group.gr_name == me.pw_name and set(group.gr_mem) <= {me.pw_name}

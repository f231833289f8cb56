"""A folder that is the person's own and stays it: found once, held from then on, whatever is moved above it.

This file is also sent alone to a Python that runs as the person (`hpcbinder.jupyterhub.sent`): it takes nothing but the
standard library (3.9).
"""

# Paths are text here, as in `space.preparing`.
# ruff: noqa: PTH116, PTH118, PTH120, PTH123

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat

_LINKS = 40
_WRITERS = "others can write to {} (chmod go-w)"
_ACL = "system.posix_acl_access"
"""acl(5): who else may write, where the mode's group bits are no more than a limit for them."""


class OpenToOthersError(Exception):
    """Somebody else can put something in a folder's place; the text says how, in one line."""


def held(path: str, *, make: bool = False, groups: bool = False, open_itself: bool = False) -> int:
    """Go to a folder, part by part from the root, each looked at by the descriptor that leads to the next.

    Every part of the path, and of links on the way, is the person's own or root's, and open to no other writers: all
    that is to be found below it could be moved away, and something else be put there. A folder where everybody may
    write but nobody move what is another's (/tmp) is none of them. The home is the account's, however it got there.

    With `groups` colleagues are trusted no more, but got along with: a folder on the way may be one that a group of the
    person's can write to, whoever owns it, where others could not put it. Then the path may lead elsewhere a moment
    later, and only the descriptor is sure (openat(2), "Rationale"). Links in such a folder are root's alone: another
    one of the person's may have been moved there. The folder itself is open to nobody else in either case.

    Args:
        path: Absolute.
        make: Make what is not there, for the person alone where a group's members could enter it.
        groups: See above.
        open_itself: Others may write to the folder itself, as the person lets them.

    Returns:
        A descriptor (open(2), O_PATH); `/proc/self/fd/N` is the folder, wherever it is moved.

    Raises:
        OpenToOthersError: See above.
        OSError: It is not there, no folder, or cannot be made.
    """
    me, root = os.geteuid(), _roots()
    mine = {os.getegid(), *os.getgroups()} - {_unknown("gid")}
    homes = _homes(me)
    place, at = "/", os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    parts = path.split("/")[::-1]
    # Of the folder that was reached. closed: nobody else gets further down. free: others may put something in it.
    # movable: and move what is there. loose: so it is further up.
    closed = free = movable = loose = False
    links, open_at = 0, ""
    try:
        while parts:
            part = parts.pop()
            if part in ("", "."):
                continue
            there = os.path.dirname(place) if part == ".." else os.path.join(place, part)
            new = _opened(at, part, there, (0o700 if loose else 0o755) if make else 0)
            about = os.fstat(new)
            above_home = any(name.startswith(there + "/") for name in homes)
            own = about.st_uid in (me, *root) or above_home
            if stat.S_ISLNK(about.st_mode):
                target = _target(new)
                links += 1
                if links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if not own:
                    raise OpenToOthersError(f"{there} belongs to somebody else")
                if movable and about.st_uid not in root:
                    raise OpenToOthersError(
                        f"{there} is a link, in a folder that others can write to (name the folder that it leads to)"
                    )
                parts.extend(target.split("/")[::-1])
                if target.startswith("/"):
                    os.close(at)
                    place, at = "/", os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                    closed = free = movable = loose = False
                continue
            os.close(at)
            place, at = there, new
            if part == "..":
                closed = False
            mode = about.st_mode
            group_s = groups and bool(mode & 0o020) and about.st_gid in mine
            if not own and (free or not group_s):
                raise OpenToOthersError(f"{there} belongs to somebody else")
            others = mode & 0o002 or (mode & 0o020 and not _closed_group(about.st_gid, at))
            open_at = ""
            if others and not mode & stat.S_ISVTX and not above_home and not closed:
                open_at = there
                if (mode & 0o002 or not group_s) and (parts or not open_itself):
                    raise OpenToOthersError(_WRITERS.format(there))
            free, movable = bool(others) or not own, bool(open_at) or not own
            loose = loose or movable
            # What others cannot even enter, they cannot write to further down.
            closed = closed or (own and not mode & 0o011)
        if open_at and not open_itself:
            raise OpenToOthersError(_WRITERS.format(open_at))
    except BaseException:
        os.close(at)
        raise
    return at


def _roots() -> tuple[int, ...]:
    """The owners that a system's own folders have: root, and whoever `/` belongs to, where that is somebody. In a user
    namespace all owners that it does not know have one number (user_namespaces(7), "Unmapped user and group IDs")."""
    owner = os.stat("/").st_uid
    return (0,) if owner == _unknown("uid") else (0, owner)


def _unknown(kind: str) -> int:
    """The number that stands for owners ("uid") or groups ("gid") that a user namespace does not know."""
    try:
        with open(f"/proc/sys/kernel/overflow{kind}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 65534


def _homes(me: int) -> tuple[str, ...]:
    try:
        home = pwd.getpwuid(me).pw_dir
    except KeyError:
        return ()
    return tuple(name.rstrip("/") + "/" for name in (home, os.path.realpath(home)) if home)


def _opened(at: int, part: str, there: str, mode: int) -> int:
    """A folder or a link in a folder; the folder is made with that mode if it is not 0."""
    try:
        while True:
            try:
                # O_DIRECTORY: else what autofs mounts when it is asked for is not mounted (open(2), O_PATH).
                return os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
            except FileNotFoundError:
                if not mode:
                    raise
            except NotADirectoryError:
                found = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
                if stat.S_ISLNK(os.fstat(found).st_mode):
                    return found
                os.close(found)
                raise
            try:
                os.mkdir(part, mode, dir_fd=at)
            except FileExistsError:
                pass
    except OSError as error:
        error.filename = there
        raise


def _target(link: int) -> str:
    """Where a link leads that is open; closes it (readlinkat(2): an empty path is the descriptor itself)."""
    try:
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)


def _closed_group(gid: int, folder: int) -> bool:
    """Whether a group that may write holds nobody but root or the person, and nobody else is let in by a list of the
    folder's."""
    return (gid == 0 or _own_group(gid)) and not _listed(folder)


def _own_group(gid: int) -> bool:
    """Whether it is the person's own group, as most systems give everybody one (pam_umask(8), usergroups)."""
    try:
        me, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == me.pw_gid and group.gr_name == me.pw_name and set(group.gr_mem) <= {me.pw_name}


def _listed(folder: int) -> bool:
    """Whether a folder has a list of who else may write."""
    try:
        return _ACL in os.listxattr(f"/proc/self/fd/{folder}")
    except OSError as error:
        # Of a file system that has none; what cannot be asked may have one.
        return error.errno not in (errno.ENOTSUP, errno.ENOSYS)

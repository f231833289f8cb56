"""From a tar's members to a tree: names, parents, hard links."""

from __future__ import annotations

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import notes, tar, tree
from hpcbinder.squashfs.archive import MAX_INODES
from hpcbinder.squashfs.directories import MAX_NAME
from hpcbinder.squashfs.inodes import MAX_TARGET
from hpcbinder.squashfs.tar import Member
from hpcbinder.squashfs.tree import Data, Directory, File, Inode, Special, Symlink
from hpcbinder.squashfs.xattrs import kept

_MAX_LINKS = 40
_ODD = frozenset((b"", b".", b".."))
_NEAR = 1024
"""Folders that are kept at hand, and bytes that their names have at most."""
_MAX_DETOUR = 1 << 22
"""Names that all symbolic links on the members' ways may lead through."""
_SPECIAL = {tar.CHARACTER: tree.CHARACTER_DEVICE, tar.BLOCK: tree.BLOCK_DEVICE, tar.FIFO: tree.FIFO}


class _Link(Inode):
    """Stands where a hard link will be whose other name has not been seen yet."""

    __slots__ = ("target",)

    def __init__(self, target: bytes) -> None:
        super().__init__(0, 0, 0, 0)
        self.target = target


def new_directory() -> Directory:
    """A directory nothing is known about: 0755, root's, of 1970."""
    return Directory(0o755, 0, 0, 0)


class TreeBuilder:
    """Takes members in the order of the tar; the last one of a name counts.

    Attributes:
        root: The tree so far.
    """

    def __init__(self) -> None:
        self.root = new_directory()
        self._implied = {self.root}
        # Where folders are, by their names in the tar up to the last slash: most members lie next to the one before.
        self._folders: dict[bytes, Directory] = {}
        self._links = False
        self._count = 0
        self._detour = 0

    def add(self, member: Member, data: Data) -> None:
        """Put a member where its name says.

        A symbolic link in the middle of a name is followed inside the tree, and missing directories are made, as
        engines do when they unpack.

        Args:
            member: It.
            data: Where its content is, if it is a file.

        Raises:
            ConvertError: Its name, its link or its numbers are impossible.
        """
        self._count += 1
        if self._count > MAX_INODES:
            raise ConvertError(f"the layer has more than {MAX_INODES} members")
        if max(member.uid, member.gid) >> 32:
            raise ConvertError("its owner is no 32-bit number")
        who = (member.mode, member.uid, member.gid, min(max(member.mtime, 0), 0xFFFFFFFF))
        name = member.name[member.name.rfind(b"/") + 1 :]
        folder = member.name[: len(member.name) - len(name)]
        parent = self._folders.get(folder)
        if parent is None or name in _ODD or b"\0" in name or len(name) > MAX_NAME:
            parts = _split(member.name)
            if not parts:
                if member.kind != tar.DIRECTORY:
                    raise ConvertError("the root can only be a directory")
                _describe(self.root, who, member)
                self._implied.discard(self.root)
                return
            parent = self._parent(parts[:-1])
            if parts[-1] == name and len(folder) <= _NEAR:
                if len(self._folders) >= _NEAR:
                    self._folders.clear()
                self._folders[folder] = parent
            name = parts[-1]
        if name in notes.NAMES:
            raise ConvertError("the name is reserved")
        there = parent.entries.get(name)
        if there is not None and member.kind != tar.DIRECTORY or isinstance(there, Symlink):
            # What led through it may lead elsewhere from now on.
            self._folders.clear()
        if member.kind == tar.DIRECTORY:
            if not isinstance(there, Directory):
                there = parent.entries[name] = new_directory()
            _describe(there, who, member)
            self._implied.discard(there)
        elif member.kind == tar.LINK and not name.startswith(b".wh."):
            target = b"/".join(_split(member.link.lstrip(b"/")))
            found = self._find(target)
            if isinstance(found, Directory) or not target:
                raise ConvertError("a hard link to a directory")
            if found is not there or found is None:
                parent.entries[name] = found or _Link(target)
                self._links = self._links or found is None
        else:
            parent.entries[name] = _new(member, who, data)

    def _parent(self, parts: list[bytes]) -> Directory:
        here, above = self.root, [self.root]
        waiting = parts[::-1]
        links = 0
        while waiting:
            name = waiting.pop()
            if name == b"..":
                # Only out of a symbolic link's target.
                if len(above) > 1:
                    above.pop()
                here = above[-1]
                continue
            below = here.entries.get(name)
            if isinstance(below, Symlink):
                links += 1
                if links > _MAX_LINKS:
                    raise ConvertError("its path has too many symbolic links")
                if below.target.startswith(b"/"):
                    here, above = self.root, [self.root]
                target = [part for part in below.target.split(b"/")[::-1] if part not in (b"", b".")]
                self._detour += len(target)
                if self._detour > _MAX_DETOUR:
                    raise ConvertError("the layer's members lie behind too many symbolic links")
                waiting += target
                if any(len(part) > MAX_NAME for part in waiting) or len(waiting) > tree.MAX_PATH:
                    raise ConvertError("its path has a name that is too long")
                continue
            if below is None:
                below = here.entries[name] = new_directory()
                self._implied.add(below)
                self._count += 1
            elif not isinstance(below, Directory):
                raise ConvertError("its parent is no directory")
            here = below
            above.append(here)
        return here

    def _find(self, path: bytes) -> Inode | None:
        here: Inode | None = self.root
        for name in path.split(b"/"):
            here = here.entries.get(name) if isinstance(here, Directory) else None
        return None if isinstance(here, _Link) else here

    def finish(self) -> list[tuple[bytes, bytes]]:
        """Resolve hard links to members that came later, and mark directories that are only implied.

        Returns:
            Hard links to what is not in this tar: (path, path of the other name).

        Raises:
            ConvertError: A hard link leads to a directory.
        """
        elsewhere = self._resolve_links() if self._links else []
        for path, _ in elsewhere:
            del self._directory_of(path).entries[path.rpartition(b"/")[2]]
        mark = File(0o644, 0, 0, 0, 0, Data())
        for directory in self._implied:
            directory.entries[notes.IMPLIED] = mark
        return elsewhere

    def _resolve_links(self) -> list[tuple[bytes, bytes]]:
        targets = {path: inode.target for path, inode in tree.walk(self.root) if isinstance(inode, _Link)}
        # What a link leads to, or the name that is not here. Links may lead to links: a chain is followed once.
        ends: dict[bytes, Inode | bytes] = {}
        for path in targets:
            chain = []
            while path in targets and path not in ends:
                ends[path] = path
                chain.append(path)
                path = targets[path]
            end = ends.get(path) or self._find(path) or path
            if isinstance(end, Directory):
                raise ConvertError(f"tar member {tar.quoted(chain[-1])}: a hard link to a directory")
            ends.update(dict.fromkeys(chain, end))
        for path, end in ends.items():
            if isinstance(end, Inode):
                self._directory_of(path).entries[path.rpartition(b"/")[2]] = end
        return [(path, end) for path, end in ends.items() if isinstance(end, bytes)]

    def _directory_of(self, path: bytes) -> Directory:
        head = path.rpartition(b"/")[0]
        found = self._find(head) if head else self.root
        assert isinstance(found, Directory)
        return found


def _describe(directory: Directory, who: tuple[int, int, int, int], member: Member) -> None:
    directory.mode, directory.uid, directory.gid, directory.mtime = who
    directory.xattrs = kept(member.xattrs)


def _new(member: Member, who: tuple[int, int, int, int], data: Data) -> Inode:
    if member.kind in (tar.FILE, tar.LINK):
        # A hard link here is a whiteout, as AUFS wrote them; its name alone counts.
        file = File(*who, member.size, data)
        if member.xattrs:
            file.xattrs = kept(member.xattrs)
        return file
    if member.kind == tar.SYMLINK:
        if not 0 < len(member.link) < MAX_TARGET or b"\0" in member.link:
            raise ConvertError("an impossible symbolic link")
        return Symlink(*who, member.link)
    major, minor = member.device
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise ConvertError(f"no such device: {major}, {minor}")
    return Special(*who, _SPECIAL[member.kind], tree.device_number(major, minor))


def _split(name: bytes) -> list[bytes]:
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if not name or name.startswith(b"/") or b".." in parts or b"\0" in name:
        raise ConvertError("names that are empty or absolute or have `..` or NUL in them are refused")
    if len(name) > tree.MAX_PATH or any(len(part) > MAX_NAME for part in parts):
        raise ConvertError("its name is too long")
    return parts

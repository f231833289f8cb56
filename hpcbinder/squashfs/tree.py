"""A file tree in memory, as it is about to be written or was just read.

Plain slotted objects, since an image may have a million of them. A file with several names (hard links) is one object
under several names. Names are bytes, as on disk.
"""

from __future__ import annotations

from collections.abc import Iterator

from hpcbinder.errors import ConvertError

DIRECTORY, FILE, SYMLINK, BLOCK_DEVICE, CHARACTER_DEVICE, FIFO, SOCKET = range(1, 8)
"""The basic inode types of squashfs."""

NO_FRAGMENT = 0xFFFFFFFF
STORED_RAW = 1 << 24
"""Bit of a block's size word: stored uncompressed."""
STORED_SIZE = STORED_RAW - 1
"""Mask of a block's size word: bytes it takes in the image; 0 is a hole."""


MAX_PATH = 1 << 16
"""Bytes of a path: sixteen times what Linux takes in one call, and 30,000 levels."""
MAX_PATHS = 1 << 30
"""Bytes of all paths: 256 for each of four million files. Those who walk may keep them."""


class Data:
    """Where a file's bytes are; shared by files with the same bytes.

    Attributes:
        start: Offset of the first stored block in the image; 0 if there is none.
        words: The blocks' size words, u32 little-endian.
        sparse: Bytes in holes.
        fragment: Index of the fragment block with the file's tail, or NO_FRAGMENT.
        offset: Where in the unpacked fragment block.
        layer: Which of a merge's inputs it is in.
    """

    __slots__ = ("fragment", "layer", "offset", "sparse", "start", "words")

    def __init__(
        self,
        start: int = 0,
        words: bytes | bytearray = b"",
        sparse: int = 0,
        fragment: int = NO_FRAGMENT,
        offset: int = 0,
        layer: int = 0,
    ) -> None:
        self.start = start
        self.words = words
        self.sparse = sparse
        self.fragment = fragment
        self.offset = offset
        self.layer = layer

    def sizes(self) -> memoryview:
        """The size words as numbers (our machines and the format are little-endian alike)."""
        return memoryview(self.words).cast("I")

    def stored(self) -> int:
        """Bytes its blocks take in the image from `start` on."""
        words = self.words
        if len(words) == 4:
            return int.from_bytes(words, "little") & STORED_SIZE
        return sum(word & STORED_SIZE for word in filter(None, self.sizes())) if words else 0


class Inode:
    """What every kind of file has.

    Attributes:
        mode: Permission bits, 12 of them.
        mtime: Unix time in seconds, 32 bits unsigned.
        number: Inode number, from 1; 0 until it is given.
        nlink: Names it has; counted when numbers are given.
        reference: Where its record lies in the inode table.
        xattrs: Extended attributes, full names and values.
    """

    __slots__ = ("gid", "mode", "mtime", "nlink", "number", "reference", "uid", "xattrs")
    type = 0

    def __init__(self, mode: int, uid: int, gid: int, mtime: int) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.number = 0
        self.nlink = 0
        self.reference = 0
        self.xattrs: tuple[tuple[bytes, bytes], ...] = ()


class Directory(Inode):
    """A directory.

    Attributes:
        entries: Name -> what it names.
        parent: Inode number of the parent; given with the numbers.
        listing: Position and length of its listing in the directory table it was read from.
    """

    __slots__ = ("entries", "listing", "parent")
    type = DIRECTORY

    def __init__(self, mode: int, uid: int, gid: int, mtime: int) -> None:
        super().__init__(mode, uid, gid, mtime)
        self.entries: dict[bytes, Inode] = {}
        self.parent = 0
        self.listing = (0, 0)


class File(Inode):
    """A regular file of `size` bytes."""

    __slots__ = ("data", "size")
    type = FILE

    def __init__(self, mode: int, uid: int, gid: int, mtime: int, size: int, data: Data) -> None:
        # Not through Inode's: most of a tree are files, and the call takes as long as all that is done here.
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.number = self.nlink = self.reference = 0
        self.xattrs = ()
        self.size = size
        self.data = data


class Symlink(Inode):
    """A symbolic link to `target`."""

    __slots__ = ("target",)
    type = SYMLINK

    def __init__(self, mode: int, uid: int, gid: int, mtime: int, target: bytes) -> None:
        super().__init__(mode, uid, gid, mtime)
        self.target = target


class Special(Inode):
    """A device, a fifo or a socket.

    Attributes:
        type: One of BLOCK_DEVICE, CHARACTER_DEVICE, FIFO, SOCKET.
        device: The kernel's 32-bit number of a device (see `device_number`); 0 for the others.
    """

    __slots__ = ("device", "type")

    def __init__(self, mode: int, uid: int, gid: int, mtime: int, type_: int, device: int) -> None:
        super().__init__(mode, uid, gid, mtime)
        self.type = type_
        self.device = device


def device_number(major: int, minor: int) -> int:
    """A device's 32-bit number (Linux, `new_encode_dev` of include/linux/kdev_t.h: 12 bits major, 20 minor)."""
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def device_parts(number: int) -> tuple[int, int]:
    """Major and minor of a 32-bit device number (`new_decode_dev`)."""
    return (number & 0xFFF00) >> 8, (number & 0xFF) | ((number >> 12) & 0xFFF00)


def walk(root: Directory) -> Iterator[tuple[bytes, Inode]]:
    """Every name below `root` with what it names: a directory before its content, names in byte order.

    Raises:
        ConvertError: A path is longer than MAX_PATH, or all of them than MAX_PATHS.
    """
    room = MAX_PATHS
    stack = [(b"", iter(sorted(root.entries.items())))]
    while stack:
        prefix, entries = stack[-1]
        for name, inode in entries:
            path = prefix + name
            if len(path) > MAX_PATH:
                raise ConvertError(f"the tree has a path of more than {MAX_PATH} bytes")
            room -= len(path)
            if room < 0:
                raise ConvertError(f"the tree has paths of more than {MAX_PATHS >> 20} MiB in all")
            yield path, inode
            if isinstance(inode, Directory):
                stack.append((path + b"/", iter(sorted(inode.entries.items()))))
                break
        else:
            stack.pop()

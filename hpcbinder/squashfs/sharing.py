"""Files of different layers with the same bytes are stored once, as they are within a layer.

Only what is surely equal is shared: a tail by its SHA-256, which the layer's notes have, blocks by what is stored of
them, byte for byte. A layer without the note, as older versions made them, shares its blocks only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hpcbinder.errors import ConvertError
from hpcbinder.squashfs import notes
from hpcbinder.squashfs.archive import Archive
from hpcbinder.squashfs.compare import blocks_alike
from hpcbinder.squashfs.tree import NO_FRAGMENT, Data, Directory, File


class Contents:
    """What the layers of a merge have in common.

    Args:
        archives: The layers, the lowest first.
        uppers: Their roots, notes and all.

    Raises:
        ConvertError: A layer's note is damaged.
    """

    def __init__(self, archives: Sequence[Archive], uppers: Sequence[Directory]) -> None:
        self._archives = archives
        self._compared: dict[tuple[int, int, int, int, bytes], bool] = {}
        self._room = sum(archive.superblock.bytes_used for archive in archives)
        found = [_note(archive, upper) for archive, upper in zip(archives, uppers, strict=True)]
        known: set[bytes] = set()
        common: set[bytes] = set()
        # The longest last: its digests need not be kept.
        *shorter, longest = sorted(found, key=len)
        for content in shorter:
            for _, digest in notes.unpack_tails(content):
                (common if digest in known else known).add(digest)
        common.update(digest for _, digest in notes.unpack_tails(longest) if digest in known)
        self._tails = [
            {place: digest for place, digest in notes.unpack_tails(content) if digest in common} for content in found
        ]

    def share(self, root: Directory) -> None:
        """Have each file that a lower layer's file is equal to use that one's data.

        Args:
            root: The merged tree, before any data has moved.

        Raises:
            ConvertError: A layer cannot be read.
        """
        layers: list[list[File]] = [[] for _ in self._archives]
        for file in _files(root):
            layers[file.data.layer].append(file)
        tails: dict[bytes, File] = {}
        blocks: dict[tuple[int, bytes], File] = {}
        for digests, files in zip(self._tails, layers, strict=True):
            for file in files:
                data = file.data
                if data.fragment == NO_FRAGMENT:
                    there = blocks.setdefault((file.size, bytes(data.words)), file)
                    if there is not file and self._stored_alike(there.data, data):
                        file.data = there.data
                elif not data.words and digests:
                    digest = digests.get((data.fragment, data.offset))
                    if digest is not None:
                        there = tails.setdefault(digest, file)
                        if there.size == file.size:
                            file.data = there.data

    def _stored_alike(self, there: Data, data: Data) -> bool:
        place = (there.layer, there.start, data.layer, data.start, bytes(data.words))
        alike = self._compared.get(place)
        if alike is None:
            # In a layer of ours no block is compared twice; one that is made on purpose must not have us read for ever.
            self._room -= data.stored()
            alike = self._compared[place] = self._room >= 0 and blocks_alike(
                self._archives[there.layer], there, self._archives[data.layer], data
            )
        return alike


def _note(archive: Archive, upper: Directory) -> bytes:
    inode = upper.entries.get(notes.TAILS)
    if not isinstance(inode, File):
        return b""
    if inode.size > notes.MAX_SIZE:
        raise ConvertError("damaged layer: its list of tails is too long", where=archive.path)
    content = archive.content(inode)
    try:
        notes.unpack_tails(content)
    except ConvertError as error:
        raise ConvertError(error.message, where=archive.path) from None
    return content


def _files(root: Directory) -> Iterator[File]:
    """Every file with content, in an order that follows from the layers; one with several names perhaps again."""
    stack = [root]
    while stack:
        for inode in stack.pop().entries.values():
            if isinstance(inode, File):
                if inode.size:
                    yield inode
            elif isinstance(inode, Directory):
                stack.append(inode)

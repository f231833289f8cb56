"""What a step does to the packages it brought, as a small layer on top of theirs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path

from hpcbinder.builders.assembling.tree import Entry, File, Gone
from hpcbinder.errors import BuildError
from hpcbinder.model import Assembly
from hpcbinder.squashfs import Image

_EDITED = 1 << 20
"""Bytes of the largest file that is edited."""


def changes(assembly: Assembly, layers: Sequence[Path]) -> dict[str, Entry]:
    """Path in the image -> what a step puts there, changes or takes away.

    Args:
        layers: The squashed packages of the step, the lowest first.

    Raises:
        BuildError: A file that is to be edited is too large.
        ConvertError: A layer is damaged.
    """
    found: dict[str, Entry] = {}
    if assembly.edits or assembly.without:
        with ExitStack() as stack:
            images = [stack.enter_context(Image.open(path)) for path in layers]
            found |= _gone(assembly, images)
            found |= _edited(assembly, images)
    return found | {path: File(file.text.encode(), file.mode) for path, file in assembly.files.items()}


def _gone(assembly: Assembly, images: Iterable[Image]) -> dict[str, Entry]:
    if not assembly.without:
        return {}
    matching = sorted({path for image in images for path in _matching(assembly, image)})
    found: dict[str, Entry] = {}
    for path in matching:
        parts = path.split("/")
        # A mark inside of a folder that goes would bring the folder back.
        if not any("/".join(parts[:end]) in found for end in range(1, len(parts))):
            found[path] = Gone()
    return found


def _matching(assembly: Assembly, image: Image) -> Iterable[str]:
    for path, _ in image.walk():
        whole = f"/{path}"
        if any(fnmatchcase(whole, glob) for glob in assembly.without) and not any(
            fnmatchcase(whole, glob) for glob in assembly.but
        ):
            yield whole


def _edited(assembly: Assembly, images: Sequence[Image]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for edit in assembly.edits:
        for image in reversed(images):
            node = image.lookup(edit.path)
            if node is None or node.kind != "file":
                continue
            if node.size > _EDITED:
                raise BuildError("is too large to be edited", where=edit.path)
            text = image.read(edit.path, _EDITED).decode("utf-8", "surrogateescape")
            new = re.sub(edit.pattern, edit.by, text, flags=re.MULTILINE)
            if new != text:
                found[edit.path] = File(new.encode("utf-8", "surrogateescape"), node.mode & 0o7777)
            break
    return found

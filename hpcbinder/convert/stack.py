"""What a merged image will have at a path, seen in its layers before they are merged."""

from __future__ import annotations

from collections.abc import Sequence

from hpcbinder.squashfs import Image, Node

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


class Stack:
    """Layers on top of each other (OCI image spec, layer.md: whiteouts and opaque whiteouts).

    Args:
        layers: Open images from the lowest to the topmost, whiteouts in them as ordinary names.
    """

    def __init__(self, layers: Sequence[Image]) -> None:
        self._layers = layers

    def kind(self, path: str) -> str | None:
        """The kind of what is at `path` (relative, no symlink followed), or None if nothing can be seen there."""
        found = self._find(path)
        return found[1].kind if found else None

    def read(self, path: str, limit: int) -> bytes | None:
        """What the file at `path` (as in `kind`) holds; None if there is none, or one of more than `limit` bytes."""
        found = self._find(path)
        if found is None or found[1].kind != "file" or found[1].size > limit:
            return None
        return found[0].read(path, limit)

    def _find(self, path: str) -> tuple[Image, Node] | None:
        *folders, last = path.split("/")
        for layer in reversed(self._layers):
            parent, hidden, node, here = "", False, None, ""
            for name in (*folders, last):
                hidden = hidden or any(layer.lookup(parent + mark) for mark in (_OPAQUE, _WHITEOUT + name))
                here = parent + name
                node = layer.lookup(here)
                if node is None or node.kind != "directory":
                    break
                parent += f"{name}/"
            if node is not None:
                return (layer, node) if here == path else None
            if hidden:
                return None
        return None

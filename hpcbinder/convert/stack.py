"""What a merged image will have at a path, seen in its layers before they are merged."""

from __future__ import annotations

from collections.abc import Sequence

from hpcbinder.squashfs import Image

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
        *folders, last = path.split("/")
        for layer in reversed(self._layers):
            parent, hidden, node = "", False, None
            for name in (*folders, last):
                hidden = hidden or any(layer.lookup(parent + mark) for mark in (_OPAQUE, _WHITEOUT + name))
                node = layer.lookup(parent + name)
                if node is None or node.kind != "directory":
                    break
                parent += f"{name}/"
            if node is not None:
                return node.kind if name == last else None
            if hidden:
                return None
        return None

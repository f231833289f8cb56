"""What layers became when they were pushed, so that the next image with them need not be compressed or sent again."""

from __future__ import annotations

import json
from pathlib import Path

from hpcbinder.errors import ConvertError
from hpcbinder.image import check_digest
from hpcbinder.registry.files import replace_file
from hpcbinder.registry.manifest import Descriptor

_PLACES = 8
_LIMIT = 64 << 10


class KnownLayers:
    """One small file for each layer, `HEX.json`, named by its DiffID. Losing one costs time, nothing else.

    Args:
        folder: Where they are; None to remember nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def find(self, diff_id: str) -> tuple[Descriptor, tuple[str, ...]] | None:
        """A layer's compressed blob, and the repositories (`HOST/NAME`) that have it, the newest first."""
        if self._folder is None:
            return None
        try:
            with self._path(self._folder, diff_id).open("rb") as file:
                data = json.loads(file.read(_LIMIT))
            blob = Descriptor(check_digest(data["digest"]), data["size"])
            places = tuple(place for place in data["places"] if isinstance(place, str))
        except (OSError, ValueError, RecursionError, KeyError, TypeError, ConvertError):
            return None
        return (blob, places) if type(blob.size) is int else None

    def keep(self, diff_id: str, blob: Descriptor, place: str) -> None:
        """Remember that a repository has a layer, if it can be written."""
        if self._folder is None:
            return
        found = self.find(diff_id)
        before = found[1] if found and found[0] == blob else ()
        if before[:1] == (place,):
            return
        places = [place, *(other for other in before if other != place)][:_PLACES]
        data = {"digest": blob.digest, "size": blob.size, "places": places}
        try:
            replace_file(self._path(self._folder, diff_id), f"{json.dumps(data)}\n".encode())
        except OSError:
            pass

    def _path(self, folder: Path, diff_id: str) -> Path:
        return folder / f"{check_digest(diff_id).removeprefix('sha256:')}.json"

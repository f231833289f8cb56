"""What lies in the storage of podman and buildah (containers/storage): what stands on what, and layers as they were.

The records are JSON: `DRIVER-images/images.json`, `DRIVER-layers/layers.json` (github.com/containers/storage, images.go
and layers.go). Nothing is written, no lock is taken: the files are replaced by renaming, and what is read of a layer is
compared with its DiffID by whoever reads it.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from hpcbinder import process
from hpcbinder.engine import layerreader
from hpcbinder.errors import BuildError
from hpcbinder.text import one_line

_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Storage:
    """One person's storage.

    Attributes:
        root: `graphRoot`.
        driver: `overlay`, `vfs`, …
    """

    root: Path
    driver: str

    def holders(self, prefix: str) -> set[str]:
        """Ids of the images that stand on one whose name begins so, and of those themselves."""
        images = self._records("images")
        layers = {_text(layer, "id"): _text(layer, "parent") for layer in self._records("layers")}
        tops = {_text(image, "layer") for image in images if any(_names(image, prefix))}
        return {_text(image, "id") for image in images if not tops.isdisjoint(_chain(_text(image, "layer"), layers))}

    def made(self, image: str) -> float:
        """When an image was stored, Unix time (s); 0 if that is not known."""
        try:
            return (self.root / f"{self.driver}-images" / _checked(image)).stat().st_mtime
        except (OSError, ValueError):
            return 0.0

    def readable_layers(self, wanted: Collection[str]) -> dict[str, str]:
        """DiffID -> id of a layer that `LayerReader` can read, of those wanted."""
        found = {}
        for layer in self._records("layers"):
            digest, id_ = layer.get("diff-digest"), layer.get("id")
            if not isinstance(digest, str) or digest not in wanted:
                continue
            if not isinstance(id_, str) or not _ID.fullmatch(id_):
                continue
            if (self.root / f"{self.driver}-layers" / f"{id_}.tar-split.gz").is_file():
                found[digest] = id_
        return found

    def _records(self, kind: str) -> list[dict[str, Any]]:
        try:
            records = json.loads((self.root / f"{self.driver}-{kind}" / f"{kind}.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return []
        return [record for record in records if isinstance(record, dict)] if isinstance(records, list) else []


class LayerReader:
    """Reads layers out of a storage, as the exact tars they came in.

    Another program does it (`layerreader.py`), in the user namespace that the files belong to.

    Args:
        storage: Where they are.
        inside: Command line that enters the user namespace; empty for root.
        environ: Its environment.
    """

    def __init__(self, storage: Storage, inside: Sequence[str], environ: Mapping[str, str]) -> None:
        self._storage = storage
        self._inside = inside
        self._environ = environ

    def read(self, layers: Mapping[str, str]) -> Iterator[tuple[str, BinaryIO]]:
        """The layers' tars, each to be read before the next is asked for.

        Args:
            layers: DiffID -> id, as `Storage.readable_layers` gives them.

        Raises:
            BuildError: One cannot be read.
        """
        program = str(Path(layerreader.__file__).resolve())
        # -I -S: nothing of the person's own Python, whose folders may not be there in the namespace.
        argv = [*self._inside, sys.executable, "-I", "-S", program, str(self._storage.root), self._storage.driver]
        try:
            child = process.start([*argv, *layers.values()], env=self._environ, stderr=subprocess.PIPE)
        except OSError as error:
            raise BuildError(f"the layers cannot be read: {error.strerror}") from error
        assert child.stdout is not None and child.stderr is not None
        try:
            for diff_id in layers:
                frames = _Frames(child.stdout, child.stderr)
                with io.BufferedReader(frames, 1 << 20) as stream:
                    yield diff_id, stream
                    frames.drain()
        finally:
            process.stop(child)


class _Frames(io.RawIOBase):
    """One layer of what `layerreader.py` writes: pieces, each behind its length, ended by one of no length."""

    def __init__(self, stream: IO[bytes], errors: IO[bytes]) -> None:
        super().__init__()
        self._stream = stream
        self._errors = errors
        self._left = 0
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.ended:
            return 0
        if not self._left:
            self._left = int.from_bytes(self._exactly(4), "big")
            if not self._left:
                self.ended = True
                return 0
        view = memoryview(buffer)[: self._left]
        block = self._exactly(len(view))
        view[:] = block
        self._left -= len(block)
        return len(block)

    def drain(self) -> None:
        """Read what the caller left of the layer, so that the next one begins."""
        rest = bytearray(1 << 16)
        while not self.ended:
            self.readinto(rest)

    def _exactly(self, count: int) -> bytes:
        block = self._stream.read(count)
        if len(block) < count:
            said = self._errors.read(4000).decode("utf-8", "replace").strip().splitlines()
            raise BuildError(f"a layer cannot be read from storage: {one_line(said[-1] if said else 'cut off', 300)}")
        return block


def _checked(image: str) -> str:
    if not _ID.fullmatch(image):
        raise ValueError(image)
    return image


def _names(record: Mapping[str, Any], prefix: str) -> Iterator[str]:
    names = record.get("names")
    for name in names if isinstance(names, list) else ():
        if isinstance(name, str) and name.startswith(prefix):
            yield name


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""


def _chain(layer: str, parents: Mapping[str, str]) -> set[str]:
    chain: set[str] = set()
    while layer and layer not in chain:
        chain.add(layer)
        layer = parents.get(layer, "")
    return chain

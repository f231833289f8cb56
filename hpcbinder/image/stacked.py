"""Squashed layers as an image whose layers are tars: what registries and engines take of one that was assembled."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from hpcbinder.errors import ConvertError
from hpcbinder.image.oci import OciImage, check_digest, dump_config
from hpcbinder.model import ImageConfig, fingerprint
from hpcbinder.squashfs import open_tar

_FORM = 1
"""Counted up when `open_tar` makes other bytes of the same layers."""
_PIECE = 1 << 20


class StackedImage:
    """An image of squashed layers; implements `OciImage`. Its DiffIDs are computed when somebody asks for them.

    Args:
        config: What the image is; its DiffIDs are not taken over.
        base: Its lowest layers, which come as the very tars that they are; None for none.
        groups: The others, the lowest first: squashed layers that become one of the image together.
        known: Folder that keeps the DiffIDs of layers for the next image that has them; None for none.
    """

    def __init__(
        self, config: ImageConfig, base: OciImage | None, groups: Sequence[Sequence[Path]], known: Path | None = None
    ) -> None:
        self._config = config
        self._base = base
        self._groups = [tuple(group) for group in groups]
        self._known = known

    @functools.cached_property
    def config(self) -> ImageConfig:
        """What the image is.

        Raises:
            ConvertError: A layer is damaged.
        """
        below = self._base.config.diff_ids if self._base is not None else ()
        config = replace(self._config, diff_ids=(*below, *map(self._diff_id, self._groups)))
        return replace(config, digest=f"sha256:{hashlib.sha256(dump_config(config)).hexdigest()}")

    def layers(self, wanted: Collection[str]) -> Iterator[tuple[str, BinaryIO]]:
        """See `OciImage.layers`."""
        missing = set(wanted)
        if self._base is not None and (below := missing & set(self._base.config.diff_ids)):
            missing -= below
            yield from self._base.layers(below)
        for group in self._groups:
            diff_id = self._diff_id(group)
            if diff_id in missing:
                missing.remove(diff_id)
                with open_tar(group) as stream:
                    yield diff_id, stream
        if missing:
            raise ConvertError(f"the image has no layer {min(missing)}")

    def _diff_id(self, group: tuple[Path, ...]) -> str:
        try:
            files = [(path.name, (about := path.stat()).st_size, about.st_mtime_ns) for path in group]
        except OSError as error:
            raise ConvertError(f"a layer cannot be read: {error.strerror}", where=error.filename) from error
        key = fingerprint([_FORM, files])
        return self._diff_ids.get(key) or self._remembered(key) or self._compute(key, group)

    @functools.cached_property
    def _diff_ids(self) -> dict[str, str]:
        return {}

    def _remembered(self, key: str) -> str | None:
        if self._known is None:
            return None
        try:
            with (self._known / f"{key}.diffid").open("rb") as file:
                found = self._diff_ids[key] = check_digest(file.read(100).decode("ascii").strip())
        except (OSError, ValueError, ConvertError):
            return None
        return found

    def _compute(self, key: str, group: tuple[Path, ...]) -> str:
        digest = hashlib.sha256()
        with open_tar(group) as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
        diff_id = self._diff_ids[key] = f"sha256:{digest.hexdigest()}"
        if self._known is not None:
            path = self._known / f"{key}.diffid"
            unfinished = path.with_name(f".{path.name}-{os.getpid()}")
            try:
                # To lose it in a crash costs time only: nothing is synced.
                unfinished.write_text(f"{diff_id}\n", encoding="ascii")
                unfinished.replace(path)
            except OSError:
                unfinished.unlink(missing_ok=True)
        return diff_id

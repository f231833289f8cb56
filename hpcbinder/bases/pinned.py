"""Which image a name in a registry meant when it was first used here: kept like a lock, so that it stays that one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hpcbinder.bases.recipe import recipe_of
from hpcbinder.errors import RegistryError
from hpcbinder.model import ImageConfig
from hpcbinder.registry import Platform, Reference, Registry, parse_reference

_FULL = re.compile(r"3\.[0-9]{1,3}\.[0-9]{1,3}\Z")


@dataclass(frozen=True)
class Pinned:
    """An image in a registry.

    Attributes:
        image: `docker.io/library/python:3.12-slim@sha256:…`.
        python: Full version of the Python that it says to have, "" for none (`PYTHON_VERSION`, as the official images
            set it).
        recipe: By which it says to be a base of ours, "" for none (`recipe.recipe_of`).
    """

    image: str
    python: str
    recipe: str = ""

    @property
    def digest(self) -> str:
        """`sha256:…`"""
        return self.image.rpartition("@")[2]


class Pins:
    """The pinned images of a store.

    Args:
        folder: Where they are kept; None to keep none.
        shared: The same of other stores, looked into first.
        refresh: Ask the registry anew.
    """

    def __init__(self, folder: Path | None, shared: Sequence[Path], *, refresh: bool) -> None:
        self._folder = folder
        self._shared = tuple(shared)
        self._refresh = refresh
        self._known: dict[tuple[str, str], Pinned] = {}

    def known(self, reference: Reference, architecture: str) -> Pinned | None:
        """What a reference was pinned to, None if it has to be asked for."""
        key = (str(reference), architecture)
        if key in self._known or self._refresh:
            return self._known.get(key)
        for folder in (*self._shared, *([self._folder] if self._folder is not None else [])):
            if (found := _load(folder / _name(*key), reference)) is not None:
                return found
        return None

    def pin(self, reference: Reference, architecture: str, registry: Registry, scratch: Path) -> Pinned:
        """What a reference means: as it is known, or as the registry says now.

        Args:
            scratch: Folder for temporary files.

        Raises:
            RegistryError: There is no such image for the architecture, or no way to it.
        """
        found = self.known(reference, architecture)
        if found is None:
            image = registry.pull(reference, Platform(architecture), scratch)
            digest = image.reference.digest
            assert digest is not None  # it says what was got
            found = Pinned(str(reference.pinned(digest)), _python(image.config), recipe_of(image.config))
            self._known[(str(reference), architecture)] = found
            if self._folder is not None:
                _keep(self._folder / _name(str(reference), architecture), found)
        return found


def _python(config: ImageConfig) -> str:
    version = config.env.get("PYTHON_VERSION", "")
    return version if _FULL.match(version) else ""


def _name(reference: str, architecture: str) -> str:
    return f"{hashlib.sha256(f'{reference} {architecture}'.encode()).hexdigest()[:32]}.json"


def _load(path: Path, reference: Reference) -> Pinned | None:
    try:
        values = json.loads(path.read_bytes())
        found = Pinned(str(values["image"]), str(values["python"]), str(values.get("recipe", "")))
        image = parse_reference(found.image)
    except (OSError, ValueError, KeyError, TypeError, RegistryError):
        return None
    return found if image.digest and image == reference.pinned(image.digest) else None


def _keep(path: Path, found: Pinned) -> None:
    """Where it cannot be kept, the registry is asked again next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".pin-", dir=path.parent)
        with os.fdopen(handle, "w") as file:
            json.dump(asdict(found), file)
            file.flush()
            os.fsync(handle)
            os.fchmod(handle, 0o644)
        Path(name).replace(path)
    except OSError:
        pass

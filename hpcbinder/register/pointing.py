"""Which images the kernels on disk point at, whatever the catalog's records say of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from hpcbinder.model import Entry

_LIMIT = 1 << 20


@dataclass(frozen=True)
class Pointing:
    """What the kernels found point at.

    Attributes:
        ids: Id of an image -> a kernelspec's folder that names it.
        files: Path of an image's file -> a kernelspec's folder that runs it.
        unseen: Recorded kernelspecs that cannot be looked at now (a file system that is not mounted, a closed folder).
    """

    ids: dict[str, Path]
    files: dict[str, Path]
    unseen: frozenset[str]

    def at(self, entry: Entry) -> str | None:
        """A kernelspec that needs this image, None if there is none."""
        if entry.id in self.ids:
            return str(self.ids[entry.id])
        folders = {str(PurePath(path).parent) for path in entry.formats.values()}
        for file, kernel in self.files.items():
            if any(PurePath(file).is_relative_to(folder) for folder in folders):
                return str(kernel)
        return next((kernel.path for kernel in entry.registered if kernel.path in self.unseen), None)


def pointing_kernels(entries: Iterable[Entry], folders: Iterable[Path] = ()) -> Pointing:
    """Look through the kernelspecs of this person, and where kernels of these images were registered.

    Args:
        entries: Images; their records say where kernels are.
        folders: More folders of kernelspecs (`…/share/jupyter/kernels`).
    """
    from jupyter_core.paths import jupyter_path

    recorded = [Path(kernel.path) for entry in entries for kernel in entry.registered]
    places = [Path(path) for path in jupyter_path("kernels")]
    pointing = Pointing({}, {}, frozenset(str(path) for path in recorded if _unseen(path)))
    for folder in dict.fromkeys([*places, *folders, *(path.parent for path in recorded)]):
        for kernel in _inside(folder):
            spec, launch = _read(kernel / "kernel.json"), _read(kernel / "launch.json")
            for id_ in (_at(spec, "metadata", "hpcbinder", "id"), _at(launch, "image", "id")):
                if id_:
                    pointing.ids.setdefault(id_, kernel)
            if location := _at(launch, "image", "location"):
                pointing.files.setdefault(location, kernel)
            for word in _words(spec):
                if word.startswith("/"):
                    pointing.files.setdefault(word, kernel)
    return pointing


def _unseen(kernel: Path) -> bool:
    """Whether a kernelspec may still be there: only a folder that can be read, without it, says that it is not."""
    try:
        return (
            any(path.name == kernel.name for path in kernel.parent.iterdir()) and _read(kernel / "kernel.json") is None
        )
    except OSError:
        return True


def _inside(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except OSError:
        return


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return json.loads(file.read(_LIMIT))
    except (OSError, ValueError, RecursionError):
        return None


def _at(value: Any, *keys: str) -> str | None:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


def _words(spec: Any) -> list[str]:
    """The command of a kernelspec: one written by hand may run an image's file itself."""
    argv = spec.get("argv") if isinstance(spec, dict) else None
    return [word for word in argv if isinstance(word, str)] if isinstance(argv, list) else []

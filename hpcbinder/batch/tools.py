"""papermill for an image that lacks it: hpcbinder's own, as one file that any Python can import from."""

from __future__ import annotations

import importlib.metadata
import io
import zipfile
from pathlib import PurePosixPath

from hpcbinder.errors import RunError

_TOOLS = ("papermill", "click", "entrypoints", "PyYAML", "tenacity", "tqdm")
"""papermill and what it imports that a notebook server does not bring along; all of them work as plain Python."""
_OLDEST = (2, 4)
"""The first papermill whose engines get their kernel manager from outside."""
_DATE = (1980, 1, 1, 0, 0, 0)


def papermill_version() -> str:
    """Of hpcbinder's own.

    Raises:
        RunError: There is none, or it is too old.
    """
    hint = "pip install 'hpcbinder[batch]'"
    try:
        version = importlib.metadata.version("papermill")
    except importlib.metadata.PackageNotFoundError:
        raise RunError("papermill, which executes notebooks, is not installed beside hpcbinder", hint=hint) from None
    if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) < _OLDEST:
        raise RunError(f"papermill {version} is older than {'.'.join(map(str, _OLDEST))}", hint=hint)
    return version


def papermill_archive() -> bytes:
    """A zip file to put on `sys.path`, the same for the same versions.

    Raises:
        RunError: A part of it is not installed.
    """
    papermill_version()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _TOOLS:
            for path, content in _sources(name):
                archive.writestr(zipfile.ZipInfo(path, _DATE), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _sources(name: str) -> list[tuple[str, bytes]]:
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError:
        raise RunError(f"{name}, which papermill needs, is not installed beside hpcbinder") from None
    found = []
    for file in sorted(files, key=str):
        path = PurePosixPath(str(file))
        if path.suffix == ".py" and ".." not in path.parts and "tests" not in path.parts:
            try:
                found.append((str(path), file.locate().read_bytes()))  # type: ignore[attr-defined]
            except OSError as error:
                raise RunError(f"{name} beside hpcbinder is damaged: {error.strerror}", where=str(path)) from None
    return found

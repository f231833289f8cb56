"""Archives that are compressed: `docker load` takes them, and so do we, by unpacking a copy."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from hpcbinder.errors import ConvertError
from hpcbinder.image import uncompressed
from hpcbinder.progress import Reporter

_OTHER = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_UNDONE = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
"""gzip and zstd, which are undone."""


def unpacked(path: Path, scratch: Path, reporter: Reporter) -> Path:
    """A file that is the archive without compression: `path` itself, or a copy in `scratch`.

    Raises:
        ConvertError: It cannot be read, is damaged, or is compressed by what is not undone here.
    """
    try:
        if not path.is_file():
            # A pipe would be waited for, a device read without end.
            hint = "an OCI layout in a folder is oci:PATH" if path.is_dir() else None
            raise ConvertError(_what(path), where=str(path), hint=hint)
        with path.open("rb", buffering=0) as file:
            head = file.read(6)
            for magic, name in _OTHER.items():
                if head.startswith(magic):
                    raise ConvertError(f"is compressed by {name}", where=str(path), hint=f"unpack it with {name} first")
            if not head.startswith(_UNDONE):
                return path
            file.seek(0)
            reporter.phase("convert", f"unpacking {path.name}")
            target = scratch / "archive.tar"
            with uncompressed(io.FileIO(file.fileno(), closefd=False), str(path)) as content, target.open("xb") as out:
                shutil.copyfileobj(content, out, 1 << 20)
            return target
    except OSError as error:
        raise ConvertError(f"cannot be unpacked: {error.strerror or error}", where=str(path)) from error


def _what(path: Path) -> str:
    if path.is_dir():
        return "is a folder, not an archive"
    return "is no ordinary file" if path.exists() else "is not there"

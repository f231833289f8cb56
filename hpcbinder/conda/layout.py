"""Where each file of a conda package belongs in an environment, and what the installer adds (docs.conda.io, "Noarch
packages"; CEP 34)."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcbinder.conda.archive import Packed, Unpacked
from hpcbinder.conda.metadata import Metadata, PathEntry
from hpcbinder.conda.prefix import replaced
from hpcbinder.text import one_line
from hpcbinder.wheels import Refused, Script, Target, checked_name, shebang

_LARGEST_EDITED = 1 << 30
"""Bytes of a file whose prefix is replaced: libraries of a few hundred megabytes are."""
_PIECE = 1 << 20


@dataclass(frozen=True)
class Placed:
    """A file or link to install.

    Attributes:
        path: Below the prefix.
        original: Its path in the package; "" if it is made here.
        packed: The package's file; None if it is made here.
        entry: What the package says of it.
        content: All of it, where it is made here.
        executable: Whether it may be run.
    """

    path: str
    original: str
    packed: Packed | None
    entry: PathEntry
    content: bytes
    executable: bool

    @property
    def target(self) -> str:
        """Of a symbolic link, else ""."""
        return self.packed.target if self.packed is not None else ""


def lay_out(unpacked: Unpacked, metadata: Metadata, target: Target) -> list[Placed]:
    """All files of an installed package but its bytecode and its record, sorted by path.

    Raises:
        Refused: A file would lie where it must not.
    """
    placed: dict[str, Placed] = {}
    for name, entry in metadata.paths.items():
        packed = unpacked.files[name]
        path = _place(name, metadata, target)
        if path in placed:
            raise Refused(f"two of its files would be {path!r}")
        if packed.content is None:
            _check_link(path, packed.target)
        placed[path] = Placed(path, name, packed, entry, b"", packed.executable)
    for script in metadata.scripts:
        path = checked_name(f"bin/{script.name}")
        if path in placed:
            raise Refused(f"its entry point {script.name!r} is also a file of it")
        placed[path] = Placed(path, "", None, PathEntry(), command(script, target), True)
    folders = {parent for path in placed for parent in _parents(path)}
    if wrong := sorted(folders & placed.keys()):
        raise Refused(f"it has a file or link {wrong[0]!r} where a folder must be")
    return [placed[path] for path in sorted(placed)]


def _place(name: str, metadata: Metadata, target: Target) -> str:
    top, _, rest = name.partition("/")
    if metadata.noarch == "python" and rest:
        if top == "site-packages":
            return f"{target.packages}/{rest}"
        if top == "python-scripts":
            return f"bin/{rest}"
    if top == "conda-meta" or name == "pyvenv.cfg":
        raise Refused(f"its {one_line(name, 200)!r} would speak for the environment")
    return name


def _check_link(path: str, target: str) -> None:
    """Links stay in the environment: what they lead to elsewhere would be another file in every image."""
    whole = posixpath.normpath(posixpath.join("/prefix", posixpath.dirname(path), target))
    # Not by the normalised path alone: `../../etc` from deep enough would come back in by name.
    depth = path.count("/")
    for part in target.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            break
    if target.startswith("/") or depth < 0 or not whole.startswith("/prefix/"):
        raise Refused(f"its link {path!r} leads out of the environment, to {one_line(target, 200)!r}")


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def command(script: Script, target: Target) -> bytes:
    """What conda makes of an entry point: a program that calls it."""
    first = script.attribute.partition(".")[0]
    return (
        f"{shebang(interpreter(target))}"
        "import sys\n"
        f"from {script.module} import {first}\n"
        'if __name__ == "__main__":\n'
        f"    sys.exit({script.attribute}())\n"
    ).encode()


def interpreter(target: Target) -> str:
    """The program that an environment's scripts are started with: the one of its very version, as with conda."""
    return f"{target.prefix}/bin/python{target.version[0]}.{target.version[1]}"


def content_of(file: Placed, prefix: str, digest: Callable[[bytes], None]) -> Iterator[bytes]:
    """A file as it is installed, in pieces, checked against what the package says of it.

    Args:
        digest: Gets all of it.

    Raises:
        Refused: It is another file, or its prefix cannot be replaced.
    """
    if file.packed is None or file.packed.content is None:
        digest(file.content)
        yield file.content
        return
    original = hashlib.sha256()
    if file.entry.placeholder:
        if file.packed.size > _LARGEST_EDITED:
            raise Refused(f"{file.original!r} has {file.packed.size} bytes, and a prefix in it")
        raw = file.packed.content.read_bytes()
        original.update(raw)
        new = replaced(raw, file.entry.placeholder, prefix, binary=file.entry.binary, path=file.original)
        digest(new)
        yield new
    else:
        for piece in _pieces(file.packed.content):
            original.update(piece)
            digest(piece)
            yield piece
    if file.entry.sha256 and original.hexdigest() != file.entry.sha256:
        raise Refused(f"{file.original!r} is not what its info/paths.json says")


def installed_size(file: Placed, prefix: str) -> int:
    """Bytes of a file as it is installed.

    Raises:
        Refused: Its prefix cannot be replaced.
    """
    if file.packed is None or file.packed.content is None:
        return len(file.content)
    if not file.entry.placeholder or file.entry.binary:
        return file.packed.size
    return sum(len(piece) for piece in content_of(file, prefix, lambda piece: None))


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            yield piece

"""A base's own apt, run on this machine without any container.

Its files are taken out of the base and started by the base's own dynamic loader (ld.so(8), `--library-path`), so that
neither this machine's C library, nor its apt, nor namespaces matter. apt only reads with it: nothing is installed, and
no program of a package is run.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcbinder.debian import ARCHIVED, KEYRING, REMOVED_KEYS
from hpcbinder.errors import BuildError
from hpcbinder.squashfs import Image, Node

_LOADERS = ("lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1", "lib64/ld64.so.2")
"""Of the architectures there are bases for."""
_PROGRAMS = ("usr/bin/apt-get", "usr/bin/gpgv", "usr/bin/sqv")
_DATA = (KEYRING[1:], REMOVED_KEYS[1:], "var/lib/dpkg/status", "var/lib/apt/extended_states")
_TIMEOUT = 300.0
"""Seconds that a question may take; most take one."""
_LARGEST = 64 << 20


class Programs:
    """What was taken out of a base.

    Args:
        base: The base, squashed, in one layer.
        folder: New folder for its files (about 50 MB), to be removed when they are not needed any more.
        suite: What it is.

    Raises:
        BuildError: It is no Debian, or a file cannot be written.
        ConvertError: The layer is damaged.
    """

    def __init__(self, base: Path, folder: Path, suite: str) -> None:
        self.root = folder
        self._keys = (KEYRING, REMOVED_KEYS) if suite in ARCHIVED else (KEYRING,)
        try:
            with Image.open(base) as image:
                loader = next((path for each in _LOADERS if (path := _real(image, each))), None)
                if loader is None or _real(image, _PROGRAMS[0]) is None:
                    raise BuildError("the base has no apt that could be run here")
                libraries = posixpath.dirname(loader)
                for path in (loader, *_libraries(image, libraries)):
                    _copy(image, path, folder / path)
                for path in (*_PROGRAMS, *_DATA):
                    if (found := _real(image, path)) is not None:
                        _copy(image, found, folder / path)
        except OSError as error:
            raise BuildError(f"the base's apt cannot be unpacked: {error.strerror}", where=str(folder)) from error
        self._start = (str(folder / loader), "--library-path", str(folder / libraries))

    def has(self, name: str) -> bool:
        """Whether the base has a program (of `/usr/bin`)."""
        return (self.root / "usr/bin" / name).is_file()

    @property
    def keyrings(self) -> tuple[Path, ...]:
        """Debian's keys that count for the suite."""
        return tuple(path for each in self._keys if (path := self.root / each[1:]).is_file())

    def run(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program of `/usr/bin`, with nothing of this process's environment.

        Raises:
            BuildError: It cannot be started, or does not end.
        """
        argv = [*self._start, str(self.root / "usr/bin" / name), *arguments]
        env = {"LC_ALL": "C", "PATH": "/nonexistent", "HOME": "/nonexistent", **(environment or {})}
        try:
            return subprocess.run(
                argv,
                env=env,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT,
                check=False,
            )
        except OSError as error:
            raise BuildError(f"the base's {name} cannot be run here: {error.strerror}") from error
        except subprocess.TimeoutExpired:
            raise BuildError(f"the base's {name} does not end") from None


def _real(image: Image, path: str) -> str | None:
    """Where links lead to."""
    found = image.locate(path)
    return found.strip("/") if found is not None and image.lookup(found) is not None else None


def _libraries(image: Image, folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in image.listdir(folder) if re.search(r"\.so(\.|$)", name)]


def _copy(image: Image, path: str, place: Path) -> None:
    """Files and links within a folder; what is anything else is not needed."""
    node: Node | None = image.lookup(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    if node is None or place.exists() or place.is_symlink():
        return
    if node.kind == "file" and node.size <= _LARGEST:
        with image.open_file(path) as source, place.open("xb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        place.chmod(0o755 if node.mode & 0o111 else 0o644)
    elif node.kind == "symlink" and node.target and "/" not in node.target:
        place.symlink_to(node.target)

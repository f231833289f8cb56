"""Where an image that is not ours has its kernels: its variables and the interpreters on its PATH tell."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from hpcbinder import contract
from hpcbinder.model import Kernel

if TYPE_CHECKING:
    from hpcbinder.squashfs import Image

PROGRAMS = ("jupyter", "python3", "python")

_STANDARD = ("/opt/conda/share/jupyter", "/usr/local/share/jupyter", "/usr/share/jupyter")
_PYTHON_FOLDER = re.compile(r"python3(\.[0-9]+)?")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Of a container whose image has none (moby `oci/defaults.go`)."""
_MOST = 32
_LONGEST = 8
"""Symbolic links behind one another."""


def kernel_dirs(image: Image, env: Mapping[str, str]) -> tuple[str, ...]:
    """Folders of kernelspecs in the order in which a Jupyter in the image would look (jupyter_core `jupyter_path`): of
    JUPYTER_PATH, of the interpreters on its PATH, then of the system. Those of some user's home are not among them.

    Raises:
        ConvertError: The image is damaged.
    """
    data = [path for path in env.get("JUPYTER_PATH", "").split(":") if path.startswith("/")][:_MOST]
    data += [f"{prefix}/share/jupyter" for prefix, _ in _prefixes(image, env)]
    folders = [f"{posixpath.normpath(path)}/kernels" for path in (*data, *_STANDARD)]
    return tuple(dict.fromkeys((*folders, *contract.KERNEL_DIRS)))


def ipykernel(image: Image, env: Mapping[str, str]) -> Kernel | None:
    """A kernel for the first Python on the image's PATH that has ipykernel, None if there is none.

    Raises:
        ConvertError: The image is damaged.
    """
    for prefix, program in _prefixes(image, env):
        if program == "jupyter":
            continue
        # Debian's own Python has what pip installs elsewhere than what is Debian's.
        libraries = (f"{prefix}/lib", *(["/usr/local/lib"] if prefix == "/usr" else []))
        if any(_has_ipykernel(image, library) for library in libraries):
            argv = (f"{prefix}/bin/{program}", "-m", "ipykernel_launcher", "-f", "{connection_file}")
            return Kernel("python3", "Python 3 (ipykernel)", "python", argv)
    return None


def _has_ipykernel(image: Image, library: str) -> bool:
    names = image.listdir(library, follow=True) if _is_folder(image, library) else []
    return any(
        _is_folder(image, f"{library}/{name}/{packages}/ipykernel")
        for name in names
        if _PYTHON_FOLDER.fullmatch(name)
        for packages in ("site-packages", "dist-packages")
    )


def _prefixes(image: Image, env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(prefix, program) of what there is on the image's PATH: where it is called, then where it really lies."""
    seen: set[tuple[str, str]] = set()
    for folder in [path for path in (env.get("PATH") or _PATH).split(":") if path.startswith("/")][:_MOST]:
        for program in PROGRAMS:
            path = f"{posixpath.normpath(folder)}/{program}"
            real, hops = path, 0
            while hops < _LONGEST and image.lookup(real, follow=True) is not None:
                prefix, _, name = real.rpartition("/bin/")
                if prefix and name and (prefix, program) not in seen:
                    seen.add((prefix, program))
                    yield prefix, program
                node = image.lookup(real)
                if node is None or node.kind != "symlink":
                    break
                real = posixpath.normpath(posixpath.join(posixpath.dirname(real), image.readlink(real)))
                hops += 1


def _is_folder(image: Image, path: str) -> bool:
    node = image.lookup(path, follow=True)
    return node is not None and node.kind == "directory"

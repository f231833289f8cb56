"""An empty Python environment as a layer, for an interpreter that is not run: it may not even be on this machine.

`uv venv` makes it, the very program that makes an engine's (docs.python.org, `venv`, says what there is to one), on the
Python that runs us. What tells of that one is then written anew.
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from hpcbinder.builders.assembling.tree import Entry, File, Folder, Link
from hpcbinder.errors import BuildError
from hpcbinder.text import one_line

_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")
_TIMEOUT = 60.0


def venv_maker() -> str:
    """Names what makes environments: another one may make them otherwise."""
    return f"uv-{version('uv')}"


def venv(prefix: str, interpreter: str, python: str) -> dict[str, Entry]:
    """The files of an empty environment: path in the image -> what is there.

    Args:
        prefix: Where it lies in the image.
        interpreter: The program that it stands on, in the image.
        python: `X.Y.Z` of it.

    Raises:
        BuildError: uv fails.
    """
    name = f"python{'.'.join(python.split('.')[:2])}"
    site = f"{prefix}/lib/{name}/site-packages"
    entries: dict[str, Entry] = {prefix: Folder(), f"{prefix}/bin": Folder()}
    entries |= {folder: Folder() for folder in (f"{prefix}/lib", posixpath.dirname(site), site)}
    entries |= {
        f"{prefix}/lib64": Link("lib"),
        f"{prefix}/bin/python": Link(interpreter),
        f"{prefix}/bin/python3": Link("python"),
        f"{prefix}/bin/{name}": Link("python"),
    }
    entries |= {f"{prefix}/{path}": File(content) for path, content in _files(prefix, name).items()}
    settings = {
        "home": posixpath.dirname(interpreter),
        "implementation": "CPython",
        "uv": version("uv"),
        "version_info": python,
        "include-system-site-packages": "false",
    }
    text = "".join(f"{key} = {value}\n" for key, value in settings.items())
    return {**entries, f"{prefix}/pyvenv.cfg": File(text.encode())}


def _files(prefix: str, name: str) -> Mapping[str, bytes]:
    """Path below the prefix -> what activates an environment, for each shell."""
    with tempfile.TemporaryDirectory(prefix="hpcbinder-venv-", dir=_folder()) as temporary:
        place = Path(temporary) / posixpath.basename(prefix)
        _run(place)
        here = next(path.name for path in (place / "lib").iterdir())
        found: dict[str, bytes] = {}
        for path in sorted((place / "bin").iterdir()):
            if not path.is_symlink():
                # The prefix and, in one of them, the folder of packages are all that they know.
                content = path.read_bytes().replace(os.fsencode(place), prefix.encode())
                old, new = (f"lib/{each}/site-packages".encode() for each in (here, name))
                found[f"bin/{path.name}"] = content.replace(old, new)
        return found


def _folder() -> str | None:
    """A folder whose name is the same in every shell's quotes."""
    return None if _PLAIN.fullmatch(tempfile.gettempdir()) else "/tmp"


def _run(place: Path) -> None:
    import uv

    environment = {"HOME": str(place.parent), "LC_ALL": "C.UTF-8", "UV_PYTHON_DOWNLOADS": "never"}
    try:
        done = subprocess.run(
            [uv.find_uv_bin(), *("venv", "--quiet", "--no-project", "--no-config", "--no-cache", "--offline")]
            + ["--python", sys.executable, os.fspath(place)],
            env=environment,
            cwd=place.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"uv cannot be run: {error}", hint="reinstall the package uv from PyPI") from error
    if done.returncode:
        raise BuildError(f"uv cannot make an environment: {one_line(done.stderr, 300)}")

"""The step every image begins with: the notebook server, in an environment of its own (docs/image-contract.md)."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

from hpcbinder.contract import ENTRYPOINT, ENV_PREFIX, LOGIN, PACKAGES_DIR, PROFILE, SERVER_PREFIX
from hpcbinder.errors import DetectError
from hpcbinder.model import Assembly, Cache, Stage, Step, TextFile
from hpcbinder.plan.wheels import locked_wheels

SYSTEM_PYTHON = "/usr/bin/python3"

PYTHONS = ("3.11", "3.12", "3.13")
"""Interpreters that requirements.lock was resolved for."""

SERVER_ENV: Mapping[str, str] = {
    "JUPYTER_PATH": f"{ENV_PREFIX}/share/jupyter",
    "JUPYTER_CONFIG_PATH": f"{ENV_PREFIX}/etc/jupyter",
}
"""What an image's environment must hold for the server to see the kernels and extensions the repository brings."""

SERVER_BIN = f"{SERVER_PREFIX}/bin"
"""Folder of jupyter-lab and jupyterhub-singleuser; on PATH after the repository's own programs."""

_FOLDER = Path(__file__).with_name("server")
_DATA = (
    "requirements.lock",
    "entrypoint",
    "profile.sh",
    "login.sh",
    "list_packages.py",
    "jupyter_server_config.json",
    "overrides.json",
)


_WITHOUT = (f"{SERVER_PREFIX}/share/jupyterhub/static/*", f"{SERVER_PREFIX}/*.map")
_BUT = f"{SERVER_PREFIX}/share/jupyterhub/static/images*"
"""What install.sh takes away again, and what it leaves of that."""


def server_step(
    python: str, executable: str = SYSTEM_PYTHON, *, full: str | None = None, architecture: str = "amd64"
) -> Step:
    """The step that installs JupyterLab and jupyterhub-singleuser from their lock, the entrypoint and profile.sh.

    It depends on nothing but that Python: every image on one base has the very same layer.

    Args:
        python: `X.Y` of the interpreter.
        executable: Its path in the image.
        full: `X.Y.Z` of it; None if that is not known, and what the step leaves can then not be said as data.
        architecture: OCI name of what the image is for.

    Raises:
        DetectError: The lock does not serve this Python.
    """
    if python not in PYTHONS:
        raise DetectError(f"no notebook server for Python {python}", hint=f"it is locked for {', '.join(PYTHONS)}")
    return Step(
        stage=Stage.SERVER,
        name="server/jupyterlab",
        reason="the notebook server, apart from the repository's own environment",
        script=_read("install.sh"),
        data={name: _read(name) for name in _DATA},
        caches=(Cache("uv", "uv"),),
        env={"UV_CACHE_DIR": "/run/hpcbinder/cache/uv", "SERVER_PYTHON": executable},
        assembly=None if full is None else _assembly(full, executable, architecture),
    )


def _assembly(python: str, executable: str, architecture: str) -> Assembly:
    """What install.sh leaves."""
    site = f"lib/python{'.'.join(python.split('.')[:2])}/site-packages"
    packages = [
        {"name": package.name, "version": package.version}
        for package in locked_wheels(_read("requirements.lock"), python, architecture)
    ]
    return Assembly(
        prefix=SERVER_PREFIX,
        interpreter=executable,
        python=python,
        wheels="requirements.lock",
        without=_WITHOUT,
        but=(_BUT,),
        files={
            f"{SERVER_PREFIX}/{site}/zzz-hpcbinder.pth": TextFile(f"{ENV_PREFIX}/{site}\n"),
            f"{SERVER_PREFIX}/etc/jupyter/jupyter_server_config.json": TextFile(_read("jupyter_server_config.json")),
            f"{SERVER_PREFIX}/share/jupyter/lab/settings/overrides.json": TextFile(_read("overrides.json")),
            ENTRYPOINT: TextFile(_read("entrypoint"), 0o755),
            PROFILE: TextFile(_read("profile.sh")),
            LOGIN: TextFile(_read("login.sh")),
            f"{PACKAGES_DIR}/server.json": TextFile(json.dumps(packages, indent=1) + "\n"),
        },
    )


def entrypoint_files() -> dict[str, str]:
    """Path below the root -> text of what makes writable places for caches and runs `start` (image contract)."""
    return {ENTRYPOINT.lstrip("/"): _read("entrypoint"), PROFILE.lstrip("/"): _read("profile.sh")}


@functools.cache
def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")

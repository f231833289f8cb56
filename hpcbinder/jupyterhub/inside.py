"""The server inside an image."""

from __future__ import annotations

import re

from hpcbinder import contract
from hpcbinder.model import Entry

# The image's own, in its environment of its own; of an image that somebody else made the one on its PATH.
_SERVER = """
JUPYTERHUB_ROOT_DIR=$(pwd)
export JUPYTERHUB_ROOT_DIR
for server in "$1" jupyterhub-singleuser; do
    if command -v "$server" >/dev/null; then
        shift
        exec "$server" "$@"
    fi
done
why="its Dockerfile installs none (pip install jupyterhub jupyterlab)"
echo "hpcbinder: no jupyterhub-singleuser in this image: $why" >&2
exit 127
"""

_OLDEST = 2
"""Major version of JupyterHub whose servers are told their place as today (JUPYTERHUB_SERVICE_URL)."""


def server_argv() -> tuple[str, ...]:
    """The command inside that is a person's server, opened on the working directory."""
    own = f"{contract.SERVER_PREFIX}/bin/jupyterhub-singleuser"
    return ("/bin/sh", "-eu", "-c", _SERVER, "hpcbinder", own)


def server_version_note(entry: Entry) -> str:
    """What a person should know of the image's JupyterHub beside the hub's, "" for nothing."""
    import jupyterhub

    hub, image = jupyterhub.__version__, _version(entry)
    if not image or _major(image) == _major(hub):
        return ""
    if _major(image) < _OLDEST:
        return f"The image has JupyterHub {image}, which this hub ({hub}) cannot talk to"
    return f"The image has JupyterHub {image}, the hub is {hub}: should the page not open, build the image again"


def _version(entry: Entry) -> str:
    for package in entry.packages.get("server", ()):
        version = package.get("version", "")
        if package.get("name") == "jupyterhub" and re.fullmatch(r"[0-9]{1,6}\.[A-Za-z0-9.+-]{1,40}", version):
            return version
    return ""


def _major(version: str) -> int:
    return int(version.partition(".")[0])

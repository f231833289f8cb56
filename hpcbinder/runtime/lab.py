"""JupyterLab in an image, on a copy of the repository that can be written to."""

from __future__ import annotations

from hpcbinder import contract

# /srv/repo is read-only, like the whole image, and a person wants to save a notebook. The copy is made inside, where
# the files are; under another name first, so that one that was interrupted is never taken for a whole one. No .git
# comes along, from whatever folder: git, on the host as well as inside, runs what the settings in it say. Not every
# image has a find.
_SCRIPT = """
without_git() {
    for path in "$1"/.[gG][iI][tT]; do
        if [ -e "$path" ] || [ -L "$path" ]; then rm -rf -- "$path"; fi
    done
    for path in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        if [ -d "$path" ] && [ ! -L "$path" ]; then without_git "$path"; fi
    done
}
if [ -e "$1" ]; then
    echo "hpcbinder: opening $1, your copy of the repository from an earlier run (move it away to start afresh)"
elif [ -d "$2" ]; then
    echo "hpcbinder: copying the repository to $1 in this folder"
    partial=".$1.partial.$$"
    trap 'rm -rf -- "$partial"' EXIT
    trap 'exit 129' HUP INT TERM
    mkdir -- "$partial"
    cp -RP -- "$2/." "$partial/"
    chmod -R u+rwX -- "$partial" || :
    without_git "$partial"
    mv -T -- "$partial" "$1" 2>/dev/null || [ -d "$1" ]
    rm -rf -- "$partial"
    trap - EXIT HUP INT TERM
fi >&2
[ ! -d "$1" ] || cd -- "$1"
shift 2
[ "$(id -u)" != 0 ] || set -- "$@" --allow-root
exec "$@"
"""

_HERE = """
[ "$(id -u)" != 0 ] || set -- "$@" --allow-root
exec "$@"
"""

_ANY_SERVER = """
for server in jupyter-lab jupyter-notebook; do
    ! command -v "$server" >/dev/null || exec "$server" "$@"
done
echo "hpcbinder: no notebook server in this image: its Dockerfile installs none (pip install jupyterlab)" >&2
exit 127
"""


def lab_argv(entry_id: str, *, repository: str = contract.REPO_DIR, own: bool = False) -> tuple[str, ...]:
    """The command inside that opens JupyterLab on `./ENTRY_ID`.

    That folder is a copy of the image's repository, made in the working directory if nothing of that name is there, and
    never overwritten; no `.git` is in it. The server listens on 127.0.0.1 and makes a token of its own, which it prints
    with its URL.

    Args:
        repository: Where the repository is in the image.
        own: Its own Dockerfile made the image: the server is the one on its PATH, if any.
    """
    return ("/bin/sh", "-eu", "-c", _SCRIPT, "hpcbinder", entry_id, repository, *_server(own))


def lab_here_argv(path: str, *, own: bool = False) -> tuple[str, ...]:
    """The command inside that opens JupyterLab on the working directory, as `lab_argv` does.

    Args:
        path: What it shows first, a path of its URL (`/lab/tree/fit.ipynb`).
        own: As for `lab_argv`.
    """
    return ("/bin/sh", "-eu", "-c", _HERE, "hpcbinder", *_server(own), f"--LabApp.default_url={path}")


def _server(own: bool) -> tuple[str, ...]:
    ours = (f"{contract.SERVER_PREFIX}/bin/jupyter-lab",)
    server = ("/bin/sh", "-eu", "-c", _ANY_SERVER, "hpcbinder") if own else ours
    return (*server, "--no-browser", "--ServerApp.ip=127.0.0.1")

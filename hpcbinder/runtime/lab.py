"""JupyterLab in an image, on a copy of the repository that can be written to."""

from __future__ import annotations

from hpcbinder import contract

# /srv/repo is read-only, like the whole image, and a person wants to save a notebook. The copy is made inside, where
# the files are; under another name first, so that one that was interrupted is never taken for a whole one.
_SCRIPT = f"""
if [ -e "$1" ]; then
    echo "hpcbinder: opening $1, your copy of the repository from an earlier run (move it away to start afresh)"
elif [ -d {contract.REPO_DIR} ]; then
    echo "hpcbinder: copying the repository to $1 in this folder"
    partial=".$1.partial.$$"
    trap 'rm -rf -- "$partial"' EXIT
    trap 'exit 129' HUP INT TERM
    cp -RP -- {contract.REPO_DIR} "$partial"
    mv -T -- "$partial" "$1" 2>/dev/null || [ -d "$1" ]
    rm -rf -- "$partial"
    trap - EXIT HUP INT TERM
fi >&2
[ ! -d "$1" ] || cd -- "$1"
shift
[ "$(id -u)" != 0 ] || set -- "$@" --allow-root
exec "$@"
"""


def lab_argv(entry_id: str) -> tuple[str, ...]:
    """The command inside that opens JupyterLab on `./ENTRY_ID`.

    That folder is a copy of the image's repository, made in the working directory if nothing of that name is there, and
    never overwritten. The server listens on 127.0.0.1 and makes a token of its own, which it prints with its URL.
    """
    server = (f"{contract.SERVER_PREFIX}/bin/jupyter-lab", "--no-browser", "--ServerApp.ip=127.0.0.1")
    return ("/bin/sh", "-eu", "-c", _SCRIPT, "hpcbinder", entry_id, *server)

"""Which commands of an image a module brings."""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from hpcbinder import contract

if TYPE_CHECKING:
    from hpcbinder.squashfs import Image

ALWAYS = ("python", "python3", "ipython", "jupyter", "jupyter-lab", "R", "Rscript", "julia")
"""What a person expects of an image that has it."""

_FROM_IMAGE = re.compile(
    r"(python|ipython|pip|perl|ruby|node|lua)[0-9.]*|jupyter(-[a-z0-9-]+)?|R|Rscript|julia|java|javac|npm|npx|pytest"
    r"|cc|c\+\+|gcc|g\+\+|gfortran|clang|clang\+\+|cmake|ctest|ninja|make"
)
"""Programs that a host may well have, and whoever asks for them wants in another version."""
_FROM_HOST = re.compile(
    r"sudo|sudoedit|su|doas|pkexec|runuser|ksu|login|k?passwd|chsh|chfn|newgrp|sg|git|hg|svn"
    r"|ssh(-[a-z0-9-]+)?|slogin|scp|sftp|rsync|mosh|rsh|rlogin|telnet|ftp"
    r"|kinit|klist|kdestroy|kswitch|aklog|gpg2?|gpg-agent|pinentry(-[a-z0-9-]+)?|pass"
    r"|sbatch|srun|salloc|scancel|squeue|sinfo|sacct|sacctmgr|scontrol|sattach|sbcast|sshare|sstat|sprio|sreport|sdiag"
    r"|qsub|qstat|qdel|qalter|qhold|qrls|bsub|bjobs|bkill|bqueues|condor_[a-z_]+"
    r"|apptainer|singularity|docker|podman|shifter|shifterimg|enroot|sarus|ch-run|ch-image"
    r"|module|ml|lmod|modulecmd|hpcbinder|bash|sh|dash|zsh|t?csh|ksh|fish|env"
)
"""Programs that passwords are typed to, keys are shown to or jobs are asked of: an image has no business with them."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", re.ASCII)
_SYSTEM = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
_LIMIT = 8 << 20
"""Bytes of a package's list of files."""
_MOST = 200
_PATH = ":".join(("/usr/local/sbin", "/usr/local/bin", *_SYSTEM))


def commands_of(
    image: Image, env: Mapping[str, str], asked: Mapping[str, Sequence[str]], *, host: str = _PATH
) -> tuple[str, ...]:
    """Names of programs on an image's PATH: those everybody expects, and those of the packages that the repository asks
    for. A name that the image's operating system has is left to the host's: it brings no second `ls` or `bash`. So is
    what the host has, but for languages and their tools, and what passwords are typed to, wherever it is.

    Args:
        image: The image's squashfs, opened.
        env: The image's own environment.
        asked: Ecosystem -> names of packages (`Entry.asked`).
        host: The PATH on which this machine has its own programs.

    Raises:
        ConvertError: The image is damaged.
    """
    folders = [path for path in (env.get("PATH") or _PATH).split(":") if path.startswith("/")][:32]
    found = {name: None for name in ALWAYS if _in(image, folders, name)}
    own = [folder for folder in folders if posixpath.normpath(folder) not in _SYSTEM]
    for name in sorted({*_of_wheels(image, asked.get("pypi", ())), *_of_conda(image, asked.get("conda", ()))}):
        if len(found) == _MOST or not _NAME.fullmatch(name) or _is_the_hosts(name, host):
            continue
        if _in(image, own, name) and not _in(image, _SYSTEM, name):
            found[name] = None
    return tuple(found)


def _is_the_hosts(name: str, path: str) -> bool:
    if _FROM_HOST.fullmatch(name):
        return True
    return _FROM_IMAGE.fullmatch(name) is None and shutil.which(name, path=path) is not None


def _in(image: Image, folders: Sequence[str], name: str) -> bool:
    return any(
        node is not None and node.kind == "file" and bool(node.mode & 0o111)
        for node in (image.lookup(f"{folder}/{name}", follow=True) for folder in folders)
    )


def _of_wheels(image: Image, names: Sequence[str]) -> Iterator[str]:
    """Scripts of installed wheels: what their RECORD has in the environment's bin (packaging.python.org, "Recording
    installed projects")."""
    wanted = {_normal(name) for name in names}
    library = f"{contract.ENV_PREFIX}/lib"
    for python in _listed(image, library):
        packages = f"{library}/{python}/site-packages"
        for folder in _listed(image, packages) if python.startswith("python3") else ():
            project, _, rest = folder.partition("-")
            if not rest.endswith(".dist-info") or _normal(project) not in wanted:
                continue
            for line in _lines(image, f"{packages}/{folder}/RECORD"):
                path = line.partition(",")[0]
                if path.startswith("../") and posixpath.dirname(posixpath.normpath(f"{packages}/{path}")) == (
                    f"{contract.ENV_PREFIX}/bin"
                ):
                    yield posixpath.basename(path)


def _of_conda(image: Image, names: Sequence[str]) -> Iterator[str]:
    """Programs of conda packages: what their record in conda-meta has in bin."""
    import json

    wanted = set(names)
    folder = f"{contract.ENV_PREFIX}/conda-meta"
    for file in _listed(image, folder):
        if not file.endswith(".json") or file.rsplit("-", 2)[0] not in wanted:
            continue
        try:
            record = json.loads("\n".join(_lines(image, f"{folder}/{file}")))
        except (ValueError, RecursionError):
            continue
        files = record.get("files") if isinstance(record, dict) else None
        for path in files if isinstance(files, list) else ():
            if isinstance(path, str) and path.startswith("bin/") and path.count("/") == 1:
                yield path[len("bin/") :]


def _lines(image: Image, path: str) -> list[str]:
    node = image.lookup(path, follow=True)
    if node is None or node.kind != "file" or node.size > _LIMIT:
        return []
    return image.read(path, _LIMIT, follow=True).decode("utf-8", "replace").splitlines()


def _listed(image: Image, folder: str) -> Sequence[str]:
    node = image.lookup(folder, follow=True)
    return image.listdir(folder, follow=True) if node is not None and node.kind == "directory" else ()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

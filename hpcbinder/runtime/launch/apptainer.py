"""Apptainer and Singularity.

Facts checked against Apptainer 1.4.5: `exec` skips an image's ENTRYPOINT; $HOME, /tmp, /var/tmp, /proc, /sys and /dev
are there unless the site's apptainer.conf says otherwise; a bind's mount point is made where the image lacks it.
"""

# Paths are text here: they become words of a command line.
# ruff: noqa: PTH110, PTH112, PTH120

from __future__ import annotations

import os
from dataclasses import dataclass

from .environment import allowed
from .values import Bind, Command, Image, LaunchError, Request, bindable, fill, under

_GPU_OPTIONS = {"nvidia": ("--nv",), "rocm": ("--rocm",), "none": ()}

_SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr")
_CONTRACT = ("/opt/env", "/opt/hpcbinder", "/opt/jupyter", "/srv/repo")
"""The image's own folders (hpcbinder/contract.py): a working directory of the host is not put over them."""


@dataclass(frozen=True)
class Apptainer:
    """Runs a SIF or a bare squashfs. `name` is apptainer, or singularity for SingularityCE and older ones."""

    program: str
    name: str = "apptainer"

    def command(self, image: Image, request: Request) -> Command:
        notes: list[str] = []
        binds = [bind for bind in request.binds if _there(bind.source, notes)]
        environ = dict(request.environ)
        seen = (environ["HOME"], "/tmp", "/var/tmp")

        temporary = environ.get("TMPDIR", "")
        inside = allowed(environ, request.environment, image.env)
        if bindable(temporary) and os.path.isdir(temporary):
            # Batch systems give each job its own; it need not be below /tmp.
            if not _covered(temporary, seen, binds) and _may_cover(temporary):
                _add(binds, temporary)
            inside["TMPDIR"] = temporary
        for path in request.files.values():
            # Also where it should be seen anyway: a site may run with /tmp and $HOME contained.
            _add(binds, os.path.dirname(path))
        cwd = request.cwd
        if cwd != "/" and not _covered(cwd, seen, binds):
            if _may_cover(cwd) and bindable(cwd):
                _add(binds, cwd)
            else:
                notes.append(f"{cwd!r} cannot be shown inside the image: starting in the home folder")
                cwd = environ["HOME"]

        prefix = "SINGULARITYENV_" if self.name == "singularity" else "APPTAINERENV_"
        switch = "SINGULARITY_NO_EVAL" if self.name == "singularity" else "APPTAINER_NO_EVAL"
        # By variables, not options: every user of the machine can read arguments. NO_EVAL: a `$` in a value stays one.
        environ.update({prefix + name: value for name, value in {**inside, **request.env}.items()})
        environ[switch] = "1"
        entrypoint = (image.entrypoint,) if image.entrypoint else ()
        return Command(
            argv=(
                *(self.program, "-s", "exec", "--cleanenv"),
                *_GPU_OPTIONS[request.gpu],
                *("--pwd", cwd),
                *(word for bind in (*binds, *request.later) for word in ("-B", str(bind))),
                image.location,
                *entrypoint,
                *fill(request.argv, request.files),
            ),
            env=environ,
            notes=tuple(notes),
            stays=True,
        )


def _may_cover(folder: str) -> bool:
    """True if binding a folder of the host hides nothing the image needs: not `/opt` as a whole, say."""
    if any(under(folder, own) for own in (*_SYSTEM, *_CONTRACT)) or any(under(own, folder) for own in _CONTRACT):
        return False
    return folder.count("/") > 1 or folder not in ("/home", "/mnt", "/root", "/run", "/tmp", "/var")


def _there(source: str, notes: list[str]) -> bool:
    if os.path.exists(source):
        return True
    # A folder of the compute nodes need not be on the login node; a kernel without it is better than none.
    notes.append(f"{source} is not on this machine: not bound")
    return False


def _covered(path: str, seen: tuple[str, ...], binds: list[Bind]) -> bool:
    return any(under(path, folder) for folder in seen if folder != "/") or any(
        bind.source == bind.target and under(path, bind.target) for bind in binds
    )


def _add(binds: list[Bind], folder: str) -> None:
    if not bindable(folder) or folder == "/":
        raise LaunchError(f"{folder!r} cannot be bound into an image: its name has a colon, a comma or a line end")
    bind = Bind(folder, folder)
    if bind not in binds:
        binds.append(bind)

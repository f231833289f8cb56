"""Charliecloud's ch-run on a squashfs.

Facts checked against 0.31 (Debian 12): the environment inside is ch-run's own, changed by `--unset-env` and `--set-env`
in the order given (without a value: the image's /ch/environment); $HOME appears at /home/$USER with `--home`; $TMPDIR,
or else /tmp, appears at /tmp; the root is read-only, a bind's target must exist in it, and a bind is never read-only.
So another folder is shown at its own path where the image has an empty folder for it (/scratch), and else at any such
folder, and paths are translated.
"""

# Paths are text here: they become words of a command line.
# ruff: noqa: PTH110, PTH112, PTH120

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from .environment import allowed
from .values import Bind, Command, Image, LaunchError, Request, bindable, fill, under

_HOST_TOOLS = ("LD_LIBRARY_PATH", "PATH")
"""What ch-run itself may need of the host, and nothing inside may see."""

_CARRIER = "HPCBINDER_HOST_"


@dataclass(frozen=True)
class Charliecloud:
    """Runs a squashfs with no privilege and no helper."""

    program: str
    name: str = "charliecloud"

    def command(self, image: Image, request: Request) -> Command:
        if request.gpu != "none":
            raise LaunchError("Charliecloud cannot bring the host's GPU libraries into a squashfs")
        host = request.environ
        view = _View(host, request.binds, image.mount_points)
        files = {name: view.path(path) for name, path in request.files.items()}
        try:
            cwd = view.path(request.cwd)
        except LaunchError as error:
            view.notes.append(f"{error}: starting in the home folder")
            cwd = view.path(host["HOME"])

        inside = allowed(host, request.environment, image.env)
        env = {**inside, **{name: host[name] for name in ("HOME", *_HOST_TOOLS) if name in host}}
        if view.temporary != "/tmp":
            env["TMPDIR"] = view.temporary
        # The host's word counts more than the image's, as it does in Apptainer; but /ch/environment comes last.
        contested = sorted(inside.keys() & image.env.keys())
        env.update({_CARRIER + name: inside[name] for name in contested})
        return Command(
            argv=(
                self.program,
                "--home",
                "--env-no-expand",
                *(f"--unset-env={name}" for name in _HOST_TOOLS),
                "--set-env",
                *(f"--set-env={name}={value}" for name, value in request.env.items()),
                *(f"--bind={bind.source}:{bind.target}" for bind in view.binds),
                f"--cd={cwd}",
                image.location,
                "--",
                *_restoring(contested),
                *((image.entrypoint,) if image.entrypoint else ()),
                *fill(request.argv, files),
            ),
            env=env,
            notes=tuple(view.notes),
            stays=True,
        )


def _restoring(names: list[str]) -> tuple[str, ...]:
    """A command in front of the command that takes the host's values back from their carriers."""
    if not names:
        return ()
    script = "".join(f'export {name}="${_CARRIER}{name}"; unset {_CARRIER}{name}; ' for name in names)
    return ("/bin/sh", "-c", script + 'exec "$@"', "hpcbinder")


class _View:
    """Where the host's folders are seen inside.

    Attributes:
        temporary: The host's folder that is /tmp inside.
        binds: What has to be bound, target by target.
        notes: What could not be shown.
    """

    def __init__(self, host: Mapping[str, str], binds: tuple[Bind, ...], mount_points: tuple[str, ...]) -> None:
        wanted = host.get("TMPDIR", "")
        self.temporary = wanted if bindable(wanted) and os.path.isdir(wanted) else "/tmp"
        self.notes: list[str] = []
        self.binds: list[Bind] = []
        home = f"/home/{host['USER']}"
        self._seen = [(host["HOME"], home), (os.path.realpath(host["HOME"]), home), (self.temporary, "/tmp")]
        self._seen += [(folder, folder) for folder in ("/dev", "/proc", "/sys")]
        self._free = list(mount_points)
        for bind in binds:
            if not os.path.exists(bind.source):
                self.notes.append(f"{bind.source} is not on this machine: not bound")
            elif bind.target in self._free:
                self._bind(bind.source, bind.target)
            elif bind.target != bind.source:
                places = ", ".join(self._free) or "none"
                raise LaunchError(
                    f"Charliecloud binds only to empty folders of the image ({places}), not {bind.target}"
                )
            elif self.path(bind.source) != bind.source:
                self.notes.append(f"{bind.source} is seen as {self.path(bind.source)} inside")
            if bind.read_only:
                self.notes.append(f"{bind.source} is not read-only inside: Charliecloud cannot bind so")

    def path(self, host_path: str) -> str:
        """Where `host_path` is seen inside; the folder it lies in is bound if it is not seen yet.

        Raises:
            LaunchError: It cannot be shown.
        """
        for source, target in self._seen:
            if source != "/" and under(host_path, source):
                return target + host_path[len(source) :]
        folder = host_path if os.path.isdir(host_path) else os.path.dirname(host_path)
        if not bindable(folder) or folder == "/":
            raise LaunchError(f"{folder!r} cannot be bound into an image")
        top = "/" + folder.split("/")[1]
        if top in self._free:
            self._bind(top, top)
            return host_path
        if not self._free:
            raise LaunchError(f"{folder!r} cannot be shown inside: the image has no empty folder left to mount it at")
        target = self._free[0]
        self._bind(folder, target)
        return target + host_path[len(folder) :]

    def _bind(self, source: str, target: str) -> None:
        if target in self._free:
            self._free.remove(target)
        self._seen.append((source, target))
        self.binds.append(Bind(source, target))

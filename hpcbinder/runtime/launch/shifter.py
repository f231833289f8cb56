"""Shifter (NERSC).

From its documentation and source (22.02): the host's environment enters as it is and the image's is laid over it, so
the command gets a reduced one; home, scratch and /tmp appear where the site's `siteFs` says; a volume's target must not
be a system folder; `--module=gpu` brings the GPU libraries where the site has that module.
"""

from __future__ import annotations

from dataclasses import dataclass

from .environment import allowed
from .values import Command, Image, LaunchError, Request, fill

_GPU_OPTIONS = {"nvidia": ("--module=gpu",), "none": ()}


@dataclass(frozen=True)
class Shifter:
    """Runs an image of the site's image folder by its id."""

    program: str
    name: str = "shifter"

    def command(self, image: Image, request: Request) -> Command:
        if request.gpu not in _GPU_OPTIONS:
            raise LaunchError(f"Shifter has no module for {request.gpu}")
        host = request.environ
        env = {**allowed(host, request.environment, image.env), "HOME": host["HOME"], "PATH": "/usr/bin:/bin"}
        volumes = [f"{bind.source}:{bind.target}" + (":ro" if bind.read_only else "") for bind in request.binds]
        return Command(
            argv=(
                self.program,
                f"--image=id:{image.location}",
                f"--workdir={request.cwd}",
                *_GPU_OPTIONS[request.gpu],
                *(f"--volume={volume}" for volume in volumes),
                *(f"--env={name}={value}" for name, value in request.env.items()),
                "--",
                *((image.entrypoint,) if image.entrypoint else ()),
                *fill(request.argv, request.files),
            ),
            env=env,
        )

"""Docker and podman-hpc: container engines that take nearly the same words."""

# Paths are text here: they become words of a command line.
# ruff: noqa: PTH110, PTH112

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, replace

from .environment import allowed
from .values import Bind, Command, Image, LaunchError, Request, bindable, fill, under


@dataclass(frozen=True)
class Docker:
    """Runs the image that the daemon has, as the person who asks, with nothing but the image and the home folder."""

    program: str
    name: str = "docker"

    def command(self, image: Image, request: Request) -> Command:
        gpu = {"nvidia": ("--gpus=all",), "rocm": ("--device=/dev/kfd", "--device=/dev/dri"), "none": ()}[request.gpu]
        options = (
            f"--user={os.getuid()}:{os.getgid()}",
            "--security-opt=no-new-privileges",
            "--cap-drop=ALL",
            # PID 1 without a handler ignores SIGTERM; docker-init is a normal process' parent.
            "--init",
            *gpu,
        )
        return _run(self.program, options, image, request, tmp=("--tmpfs=/tmp:exec,mode=1777",))


@dataclass(frozen=True)
class PodmanHpc:
    """Runs an image out of a squashed store: the one `podman-hpc migrate` fills, or a folder of this image alone
    (format podman-hpc). Inside, the person is uid 0."""

    program: str
    name: str = "podman-hpc"

    def command(self, image: Image, request: Request) -> Command:
        if request.gpu == "rocm":
            raise LaunchError("podman-hpc has no module for rocm")
        if os.path.isdir(image.location):
            store, image = image.location, replace(image, location=_only_image(image.location))
            # podman parts stores at commas.
            if "," in store:
                raise LaunchError(f"podman-hpc cannot take a store with a comma in its name: {store}")
            request = replace(request, environ={**request.environ, "SQUASH_DIR": store})
        return _run(self.program, ("--gpu",) if request.gpu == "nvidia" else (), image, request)


def _only_image(store: str) -> str:
    """What the image in a store is called."""
    try:
        with open(os.path.join(store, "overlay-images", "images.json"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            names = [str(name) for image in json.load(file) for name in image["names"] or ()]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise LaunchError(f"{store} is no image store: {error}") from error
    if len(names) != 1 or names[0].startswith("-"):
        raise LaunchError(f"{store} holds {len(names)} named images where one is expected")
    return names[0]


def _run(
    program: str, options: tuple[str, ...], image: Image, request: Request, *, tmp: tuple[str, ...] = ()
) -> Command:
    host = dict(request.environ)
    notes: list[str] = []
    binds: list[Bind] = []
    for bind in request.binds:
        if os.path.exists(bind.source):
            binds.append(bind)
        else:
            notes.append(f"{bind.source} is not on this machine: not bound")
    for folder in (host["HOME"], request.cwd, *map(os.path.dirname, request.files.values())):
        # Both engines refuse two mounts at one place: what a site binds there counts.
        shown = any(
            folder == bind.target or bind.source == bind.target and under(folder, bind.target) for bind in binds
        )
        if folder == "/" or shown:
            continue
        if not bindable(folder):
            raise LaunchError(f"{folder!r} cannot be bound into an image: its name has a colon, a comma or a line end")
        binds.append(Bind(folder, folder))
    if any(bind.target == "/tmp" for bind in binds):
        tmp = ()  # who works in /tmp, or has it bound, wants the host's
    # `--env NAME` alone takes the value from the client's environment: values stay out of argv.
    names = sorted({*allowed(host, request.environment, image.env), "HOME"} - request.env.keys())
    name = f"hpcbinder-{os.urandom(8).hex()}"
    terminal = ("--interactive", *(("--tty",) if sys.stdin.isatty() else ())) if request.interactive else ()
    return Command(
        argv=(
            *(program, "run", "--rm", f"--name={name}", "--read-only", "--network=host"),
            *terminal,
            *options,
            *tmp,
            *(f"--volume={bind}" for bind in binds),
            f"--workdir={request.cwd}",
            *(f"--env={name}" for name in names),
            *(f"--env={name}={value}" for name, value in request.env.items()),
            f"--entrypoint={image.entrypoint}" if image.entrypoint else "--entrypoint=",
            image.location,
            *fill(request.argv, request.files),
        ),
        env=host,
        notes=tuple(notes),
        cleanup=(program, "rm", "--force", name),
    )

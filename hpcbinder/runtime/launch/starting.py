"""What a description comes to for this machine at this moment: a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .environment import allowed, host_environment
from .gpu import resolve, shortcoming
from .pinned import only_there, searched_elsewhere
from .prologue import environment_after
from .runtimes import locate
from .values import Command, Image, LaunchError, Request, parse_bind

FORMAT = 1
"""Of launch.json."""

EXIT_CODE = 9
"""When nothing was started; hpcbinder's "no runtime here can run the image"."""


def prepare(
    description: Mapping[str, Any],
    *,
    environ: Mapping[str, str],
    cwd: str,
    argv: Sequence[str] | None = None,
    files: Mapping[str, str] | None = None,
    interactive: bool = False,
) -> Command:
    """Turn a description into a command for this machine at this moment.

    Args:
        description: `format`, `runtime`, `program`, `image` {id, location, entrypoint, env, mount_points}, `argv`,
            `env`, `binds`, `environment`, `gpu`, `prologue`, `needs` {gpu, cuda}, `files` (as below), `slurm`
            {inside, asked, accounts} (`workers`) and `folder` {path, inode, above} (`pinned`) where there are any;
            hpcbinder.runtime.describing makes it.
        environ: The environment of whom it is run for.
        cwd: Absolute working directory; `folder` counts more.
        argv: The command, the description's own if None.
        files: Name -> path of files that `{name}` in argv stands for.
        interactive: A person sits at a terminal.

    Raises:
        LaunchError: It cannot be run here.
    """
    if description.get("format") != FORMAT:
        raise LaunchError("launch.json is of another version of hpcbinder: register the kernel again")
    environ = environment_after(description["prologue"], host_environment(environ))
    runtime = locate(description["runtime"], description["program"], environ)
    gpu = resolve(description["gpu"])
    if gpu != "none" and description["gpu"] == "auto" and runtime.name == "charliecloud":
        gpu = "none"
    image = description["image"]
    words = tuple(description["argv"] if argv is None else argv)
    folder = description.get("folder")
    cwd = cwd if folder is None else folder["path"]
    needed = {**description.get("files", {}), **(files or {})}
    assistant = None
    if "slurm" in description and runtime.name != "docker":  # whose daemon may be elsewhere
        from . import workers  # most of what is run asks the batch system for nothing

        assistant = workers.offered(description, environ, cwd, runtime.name)
        if assistant is not None:
            words, found = workers.shown(assistant, words)
            needed.update(found)
    entrypoint, env = image["entrypoint"], description["env"]
    if folder is not None:
        environ = {**environ, **searched_elsewhere(environ)}
        seen = {**image["env"], **allowed(environ, description["environment"], image["env"]), **env}
        env = {**env, **searched_elsewhere(seen)}
        words, entrypoint = only_there(folder, (*((entrypoint,) if entrypoint else ()), *words)), ""
    command = runtime.command(
        Image(
            id=image["id"],
            location=image["location"],
            entrypoint=entrypoint,
            env=image["env"],
            mount_points=tuple(image["mount_points"]),
        ),
        Request(
            argv=words,
            cwd=cwd,
            environ=environ,
            environment=tuple(description["environment"]),
            binds=tuple(map(parse_bind, description["binds"])),
            later=assistant.client.binds if assistant is not None and assistant.client is not None else (),
            gpu=gpu,
            files=needed,
            env=env,
            interactive=interactive,
        ),
    )
    lacking = shortcoming(description.get("needs", {}), gpu)
    notes = (*command.notes, *([lacking] if lacking else []), *(assistant.notes if assistant is not None else ()))
    return replace(command, notes=notes, helper=assistant)

"""Which engine builds, and why."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from hpcbinder.config import Config
from hpcbinder.engine.api import Engine
from hpcbinder.errors import BuildError, UsageError
from hpcbinder.progress import Reporter, Silent

ENGINES = ("docker", "podman", "buildah")
"""From the one that is asked first to the last."""


class Candidate(Engine, Protocol):
    """An engine that can say whether it is there."""

    @property
    def description(self) -> str:
        """`podman 4.3.1, rootless`, for a person."""

    @property
    def rootful(self) -> bool:
        """It runs build steps as the machine's root."""

    @property
    def warning(self) -> str | None:
        """What a person should know about it, if anything."""

    def check(self) -> None:
        """Raise BuildError if it cannot build."""


def pick_engine(
    name: str, config: Config, reporter: Reporter | None = None, *, environ: Mapping[str, str] = os.environ
) -> Engine:
    """The engine of this name, or the first that can build.

    Args:
        name: `auto` or one of `ENGINES`.
        reporter: Hears which it is, and why none before it.
        environ: The environment.

    Raises:
        UsageError: No engine has this name.
        BuildError: It is not there or cannot build, with what to do about it; or `none` is the name.
    """
    if name == "none":
        raise BuildError(
            "images are assembled here, without an engine (build.engine)",
            hint="name one: auto, docker, podman or buildah",
        )
    if name not in ("auto", *ENGINES):
        raise UsageError(f"no such engine: {name!r}", hint=f"auto, none, {', '.join(ENGINES)}")
    reporter = reporter or Silent()
    refused: list[tuple[str, BuildError]] = []
    for engine in _candidates(name, config, reporter, environ):
        try:
            engine.check()
            if config.build.shared and engine.rootful:
                raise BuildError(
                    f"{engine.description}: not for others' repositories (build.shared)",
                    hint="podman or buildah of an ordinary user, or rootless Docker (docs/engines.md)",
                )
        except BuildError as error:
            refused.append((engine.name, error))
            continue
        why = f" ({'; '.join(_reason(*each) for each in refused)})" if refused else ""
        reporter.phase("build", f"engine: {engine.description}{why}")
        if engine.warning:
            reporter.phase("build", engine.warning)
        return engine
    if name != "auto":
        raise refused[-1][1]
    hints = [error.hint for engine, error in refused if error.hint and "not installed" not in error.message]
    raise BuildError(
        f"nothing here can build: {'; '.join(_reason(*each) for each in refused)}",
        hint=hints[-1] if hints else "install podman, or ask for it (docs/engines.md says what it needs)",
    )


def engines_named(
    name: str, config: Config, reporter: Reporter | None = None, *, environ: Mapping[str, str] = os.environ
) -> Iterator[Engine]:
    """The engines of this name that may hold images, whether they can build or not; nothing was asked of them yet.

    Args:
        name: One of `ENGINES`; of Docker there may be a rootless and another one.
    """
    yield from _candidates(name, config, reporter or Silent(), environ)


def _candidates(name: str, config: Config, reporter: Reporter, environ: Mapping[str, str]) -> Iterator[Candidate]:
    build = config.build
    if name in ("auto", "docker"):
        from hpcbinder.engine.docker import DockerEngine

        for host in _docker_hosts(config, environ):
            yield DockerEngine(host, network=build.network, environ=environ, reporter=reporter)
    if name in ("auto", "podman"):
        from hpcbinder.engine.podman import PodmanEngine

        yield PodmanEngine(network=build.network, isolation=build.isolation, environ=environ)
    if name in ("auto", "buildah"):
        from hpcbinder.engine.buildah import BuildahEngine

        yield BuildahEngine(network=build.network, isolation=build.isolation, environ=environ)


def _docker_hosts(config: Config, environ: Mapping[str, str]) -> list[str | None]:
    """Addresses to try: what somebody chose alone, else a rootless daemon's own socket first."""
    if config.build.dockerd or environ.get("DOCKER_HOST"):
        return [config.build.dockerd]
    # Where dockerd-rootless.sh puts it (docs.docker.com/engine/security/rootless).
    socket = Path(environ.get("XDG_RUNTIME_DIR") or "/nonexistent") / "docker.sock"
    return [f"unix://{socket}", None] if socket.exists() else [None]


def _reason(name: str, error: BuildError) -> str:
    return error.message if error.message.lower().startswith(name) else f"{name}: {error.message}"

"""Which engine builds."""

from __future__ import annotations

from hpcbinder.config import Config
from hpcbinder.engine.api import Engine
from hpcbinder.errors import UsageError

ENGINES = ("docker",)


def pick_engine(name: str, config: Config) -> Engine:
    """The engine of this name, or the one that is there, ready to build.

    Args:
        name: `auto` or one of `ENGINES`.

    Raises:
        UsageError: No engine has this name.
        BuildError: It is not there or cannot build, with what to do about it.
    """
    if name not in ("auto", *ENGINES):
        raise UsageError(f"no such engine: {name!r}", hint=f"auto, {', '.join(ENGINES)}")
    from hpcbinder.engine.docker import DockerEngine

    engine = DockerEngine(config.build.dockerd, network=config.build.network)
    engine.check()
    return engine

"""Engines: what builds an image from a Dockerfile and hands out its layers."""

from hpcbinder.engine.api import Engine, EngineImage, Foreign
from hpcbinder.engine.buildah import BuildahEngine
from hpcbinder.engine.docker import DockerEngine
from hpcbinder.engine.pick import ENGINES, engines_named, pick_engine
from hpcbinder.engine.podman import PodmanEngine
from hpcbinder.engine.secrets import passwords, site_secrets
from hpcbinder.engine.tools import ensure_tools_image, tools_tag
from hpcbinder.engine.unpack import unpack

__all__ = [
    "ENGINES",
    "BuildahEngine",
    "DockerEngine",
    "Engine",
    "EngineImage",
    "Foreign",
    "PodmanEngine",
    "engines_named",
    "ensure_tools_image",
    "passwords",
    "pick_engine",
    "site_secrets",
    "tools_tag",
    "unpack",
]

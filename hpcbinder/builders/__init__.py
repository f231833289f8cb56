"""From a plan to an image. One module per way of making it: an engine that builds a Dockerfile, or the assembler that
merges squashed layers; `choose` says which."""

from hpcbinder.builders.choose import Built, build_image
from hpcbinder.builders.dockerfile import build_with_engine
from hpcbinder.builders.obstacle import ASSEMBLED, ASSEMBLES

__all__ = ["ASSEMBLED", "ASSEMBLES", "Built", "build_image", "build_with_engine"]

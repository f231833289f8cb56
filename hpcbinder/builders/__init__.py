"""From a plan to an image. One module per way of making it: an engine that builds a Dockerfile, or the assembler that
merges squashed layers, with somebody who runs what has to be run; `choose` says which."""

from hpcbinder.builders.choose import Built, assembled_image, build_image, fetch_ahead
from hpcbinder.builders.dockerfile import build_with_engine
from hpcbinder.builders.obstacle import ASSEMBLED, ASSEMBLES

__all__ = ["ASSEMBLED", "ASSEMBLES", "Built", "assembled_image", "build_image", "build_with_engine", "fetch_ahead"]

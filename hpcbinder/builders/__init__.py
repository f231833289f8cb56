"""From a plan to an image. One module per way of making it; today an engine that builds a Dockerfile."""

from hpcbinder.builders.dockerfile import build_with_engine

__all__ = ["build_with_engine"]

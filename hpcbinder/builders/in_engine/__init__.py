"""Engines that are handed what is assembled so far: for a step that has to be run, or for what packages want to have
run."""

from hpcbinder.builders.in_engine.runner import EngineRunner
from hpcbinder.builders.in_engine.workshop import EngineWorkshop, workshops_here

__all__ = ["EngineRunner", "EngineWorkshop", "workshops_here"]

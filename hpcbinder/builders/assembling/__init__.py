"""The builder that runs nothing: a plan whose steps are all data becomes an image by merging squashed layers."""

from hpcbinder.builders.assembling.ahead import fetch_ahead, network_needed
from hpcbinder.builders.assembling.assemble import AssembledImage, Assembler, Prepared
from hpcbinder.builders.assembling.finding import Unbuildable
from hpcbinder.builders.assembling.inside import environment_of, files_of
from hpcbinder.builders.assembling.interpreter import base_interpreter
from hpcbinder.builders.assembling.layer import Layer
from hpcbinder.builders.assembling.oci import kept_image, stacked
from hpcbinder.builders.assembling.steps import Ready, StepRunner, only_below, without
from hpcbinder.builders.assembling.stores import assembler, attainable, wheel_store
from hpcbinder.builders.assembling.tree import Entry, File, Gone, layer_tar
from hpcbinder.builders.assembling.workshops import EngineShop, Workshops

__all__ = [
    "AssembledImage",
    "Assembler",
    "EngineShop",
    "Entry",
    "File",
    "Gone",
    "Layer",
    "Prepared",
    "Ready",
    "StepRunner",
    "Unbuildable",
    "Workshops",
    "assembler",
    "attainable",
    "base_interpreter",
    "environment_of",
    "fetch_ahead",
    "files_of",
    "kept_image",
    "layer_tar",
    "network_needed",
    "only_below",
    "stacked",
    "wheel_store",
    "without",
]

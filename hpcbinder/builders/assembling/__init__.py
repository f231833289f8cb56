"""The builder that runs nothing: a plan whose steps are all data becomes an image by merging squashed layers."""

from hpcbinder.builders.assembling.assemble import AssembledImage, Assembler

__all__ = ["AssembledImage", "Assembler"]

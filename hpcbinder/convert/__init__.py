"""From an image of layers to the files that runtimes on a cluster take."""

from hpcbinder.convert.pipeline import FORMATS, Converted, convert

__all__ = ["FORMATS", "Converted", "convert"]

"""Looking into a SIF or a squashfs image, whoever made it, without mounting it and without a privilege."""

from hpcbinder.look.check import check
from hpcbinder.look.difference import Change, differences
from hpcbinder.look.extract import extract
from hpcbinder.look.facts import inspect
from hpcbinder.look.opened import open_image

__all__ = ["Change", "check", "differences", "extract", "inspect", "open_image"]

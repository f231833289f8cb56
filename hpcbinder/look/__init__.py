"""Looking into a SIF or a squashfs image, whoever made it, without mounting it and without a privilege."""

from hpcbinder.look.check import check
from hpcbinder.look.difference import Change, differences
from hpcbinder.look.extract import extract
from hpcbinder.look.facts import inspect
from hpcbinder.look.opened import open_image
from hpcbinder.look.sbom import stored_sbom
from hpcbinder.look.signatures import Signature, signatures

__all__ = [
    "Change",
    "Signature",
    "check",
    "differences",
    "extract",
    "inspect",
    "open_image",
    "signatures",
    "stored_sbom",
]

"""From an image of layers to the files that runtimes on a cluster take."""

from hpcbinder.convert.formats import archive_oci
from hpcbinder.convert.imagestore import is_store, join_store
from hpcbinder.convert.inside import read_config
from hpcbinder.convert.layers import LayerCache
from hpcbinder.convert.pipeline import FORMATS, Converted, check_name, convert, rewrap
from hpcbinder.convert.sbom import LEFT_OUT as SBOM_LEFT_OUT
from hpcbinder.convert.sbom import read_sbom, sbom_format

__all__ = [
    "FORMATS",
    "SBOM_LEFT_OUT",
    "Converted",
    "LayerCache",
    "archive_oci",
    "check_name",
    "convert",
    "is_store",
    "join_store",
    "read_config",
    "read_sbom",
    "rewrap",
    "sbom_format",
]

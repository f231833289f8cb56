"""Conda packages as squashed layers: solved by rattler, and what is installed is squashed once, for every environment.

A package is fetched, checked, unpacked at a fixed prefix with the prefix in its files replaced, compiled for the
environment's own Python, and becomes a layer; an environment is a merge of such layers. Nothing of a package is run.
"""

from hpcbinder.conda.archive import unpack
from hpcbinder.conda.channels import Channels
from hpcbinder.conda.resolver import CondaResolver
from hpcbinder.conda.store import SUFFIX, CondaLayer, CondaStore

__all__ = ["SUFFIX", "Channels", "CondaLayer", "CondaResolver", "CondaStore", "unpack"]

"""What every image stands on: Debian, bootstrapped from its packages, no registry needed."""

from hpcbinder.bases.base import BaseImage, ensure_base
from hpcbinder.bases.recipe import base_tag

__all__ = ["BaseImage", "base_tag", "ensure_base"]

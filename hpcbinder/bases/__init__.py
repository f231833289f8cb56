"""What every image stands on: Debian, and the interpreters on it."""

from hpcbinder.bases.base import ensure_base
from hpcbinder.bases.interpreter import interpreter_tag
from hpcbinder.bases.kept import BaseImage
from hpcbinder.bases.offer import Bases
from hpcbinder.bases.recipe import base_key, base_tag

__all__ = ["BaseImage", "Bases", "base_key", "base_tag", "ensure_base", "interpreter_tag"]

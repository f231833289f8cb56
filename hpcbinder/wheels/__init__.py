"""Wheels as squashed layers: what is installed is the same files for everybody, so it is squashed once.

A lock's wheels are fetched, checked, unpacked at a fixed prefix as the binary distribution format says, compiled for
the image's interpreter, and each becomes a layer of its own; an environment is a merge of such layers.
"""

from hpcbinder.wheels.bytecode import Interpreter, host_interpreter
from hpcbinder.wheels.installed import FORM
from hpcbinder.wheels.store import WheelStore
from hpcbinder.wheels.target import Target

__all__ = ["FORM", "Interpreter", "Target", "WheelStore", "host_interpreter"]

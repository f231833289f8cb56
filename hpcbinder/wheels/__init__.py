"""Wheels as squashed layers: what is installed is the same files for everybody, so it is squashed once.

A lock's wheels are fetched, checked, unpacked at a fixed prefix as the binary distribution format says, compiled for
the image's interpreter, and each becomes a layer of its own; an environment is a merge of such layers.
"""

from hpcbinder.wheels.archive import Archive, Refused, checked_name
from hpcbinder.wheels.building import PREFIX as BUILD_PREFIX
from hpcbinder.wheels.building import BuiltWheel, Place, Source, WheelBuilder
from hpcbinder.wheels.bytecode import (
    LARGEST,
    Compiler,
    Compilers,
    Interpreter,
    InterpreterSource,
    host_interpreter,
)
from hpcbinder.wheels.distinfo import Script, read_script
from hpcbinder.wheels.download import Downloads
from hpcbinder.wheels.index import Candidate
from hpcbinder.wheels.installed import FORM
from hpcbinder.wheels.layout import shebang
from hpcbinder.wheels.locks import Lock as FileLock
from hpcbinder.wheels.sdists import choose_sdist
from hpcbinder.wheels.store import WheelStore
from hpcbinder.wheels.target import Target
from hpcbinder.wheels.tarring import PackageTar, padding

__all__ = [
    "BUILD_PREFIX",
    "FORM",
    "LARGEST",
    "Archive",
    "BuiltWheel",
    "Candidate",
    "Compiler",
    "Compilers",
    "Downloads",
    "FileLock",
    "Interpreter",
    "InterpreterSource",
    "PackageTar",
    "Place",
    "Refused",
    "Script",
    "Source",
    "Target",
    "WheelBuilder",
    "WheelStore",
    "checked_name",
    "choose_sdist",
    "host_interpreter",
    "padding",
    "read_script",
    "shebang",
]

"""Interpreters that lie in folders of this machine, and how one of them becomes part of an image."""

from hpcbinder.interpreters.find import Found, find_interpreters
from hpcbinder.interpreters.fit import left_out, obstacle
from hpcbinder.interpreters.layer import Layer, files_stamp, write_layer
from hpcbinder.interpreters.look import Interpreter

__all__ = ["Found", "Interpreter", "Layer", "files_stamp", "find_interpreters", "left_out", "obstacle", "write_layer"]

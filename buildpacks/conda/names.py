"""What conda packages are called on the Python package index, where that is another name."""

from __future__ import annotations

import re

OTHER_NAMES = {
    "dask-core": "dask",
    "graphviz-python": "graphviz",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "py-opencv": "opencv-python",
    "py-xgboost": "xgboost",
    "pytables": "tables",
    "python-graphviz": "graphviz",
    "python-kaleido": "kaleido",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "tensorflow-base": "tensorflow",
}
"""Conda's name -> the index's. Facts of conda-forge's recipes."""


_OF_PYTHON = re.compile(r"(^|_|\d)py(\d|_|h)")
"""In the build string of what is made for a Python (conda-build: `py312h…_0`, `pyhd8ed1ab_0`, `py_0`). `tzdata`, say,
is another thing to conda than to Python."""


def index_name(name: str, version: str, build: str) -> str | None:
    """The normalised name (PEP 503) that a conda package most likely has on the index; None if it is not of Python."""
    from packaging.version import InvalidVersion, Version

    found = re.sub(r"[-_.]+", "-", OTHER_NAMES.get(name, name)).lower()
    try:
        Version(version)
    except InvalidVersion:
        return None
    return found if _OF_PYTHON.search(build) and re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", found) else None

"""Builds one wheel inside of a workshop, where nothing else of hpcbinder is, with the base's own Python (3.9 or later).

What a backend is asked, and how, says PEP 517: first which packages it needs besides the declared ones; if they are
not all there yet, that is the answer, and it is run again with them.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import tarfile
import zipfile
from typing import Any

STEP = "/run/hpcbinder/step"
SOURCE = "/run/hpcbinder/work/source"
OUT = "/run/hpcbinder/out"


def main() -> None:
    with open(f"{STEP}/build.json", encoding="utf-8") as file:  # noqa: PTH123
        task = json.load(file)
    os.chdir(os.path.join(_unpack(task["archive"]), task["subdirectory"]))  # noqa: PTH118, TID251 a process of its own
    # The folder of this file is no place for a backend to find modules.
    sys.path[:] = [os.path.abspath(path) for path in task["backend_path"]] + sys.path[1:]  # noqa: PTH100
    backend = _backend(task["backend"])
    ask = getattr(backend, "get_requires_for_build_wheel", None)
    wanted = [str(line) for line in (ask(None) if ask is not None else None) or ()]
    if set(wanted) - set(task["requires"]):
        _answer({"requires": wanted})
    else:
        _answer({"wheel": str(backend.build_wheel(OUT, None, None))})


def _unpack(archive: str) -> str:
    if not archive:
        shutil.copytree(f"{STEP}/source", SOURCE, symlinks=True)
        return SOURCE
    path = f"{STEP}/{archive}"
    os.mkdir(SOURCE)  # noqa: PTH102
    if archive.endswith(".zip"):
        with zipfile.ZipFile(path) as zipped:
            zipped.extractall(SOURCE)
    else:
        with tarfile.open(path) as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(SOURCE, filter="data")
            else:
                tar.extractall(SOURCE)
    names = os.listdir(SOURCE)  # noqa: PTH208
    return os.path.join(SOURCE, names[0]) if len(names) == 1 else SOURCE  # noqa: PTH118


def _backend(name: str) -> Any:
    module, _, attributes = name.partition(":")
    backend: Any = importlib.import_module(module)
    for attribute in filter(None, attributes.split(".")):
        backend = getattr(backend, attribute)
    return backend


def _answer(value: dict[str, Any]) -> None:
    with open(f"{OUT}/answer.json", "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump(value, file)


if __name__ == "__main__":
    main()

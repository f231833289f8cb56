"""What an image needs of the machine it runs on, read from what is known of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from hpcbinder.config import RuntimeConfig
from hpcbinder.contract import LABEL_PREFIX
from hpcbinder.model import Entry
from hpcbinder.runtime.launch.gpu import resolve, shortcoming

_RUNTIME = re.compile(r"nvidia-cuda-runtime(-cu\d+)?|cuda-cudart|cuda-version|cudatoolkit|pytorch-cuda")
"""Packages whose version is that of CUDA (PyPI's, and conda's)."""

_NAMED = re.compile(r"(?:cupy-cuda|jax-cuda)(\d\d)")
"""Packages that have CUDA's version in their name."""


def gpu_needs(entry: Entry) -> dict[str, str]:
    """`gpu` (nvidia or rocm) and, as far as its packages tell, `cuda` (`12.4`); {} for an image that needs none."""
    gpu = entry.config.labels.get(f"{LABEL_PREFIX}gpu", "")
    if gpu not in ("nvidia", "rocm"):
        return {}
    cuda = _cuda(_packages(entry)) if gpu == "nvidia" else ""
    return {"gpu": gpu, **({"cuda": cuda} if cuda else {})}


def gpu_shortcoming(entry: Entry, settings: RuntimeConfig) -> str:
    """What the image lacks of this machine's GPU and driver, "" if nothing."""
    return shortcoming(gpu_needs(entry), resolve(settings.gpu))


def _packages(entry: Entry) -> Iterable[Mapping[str, str]]:
    for packages in entry.packages.values():
        yield from packages
    for lock in entry.locks:
        yield from ({"name": package.name, "version": package.version} for package in lock.packages)


def _cuda(packages: Iterable[Mapping[str, str]]) -> str:
    named = ""
    for package in packages:
        name, version = str(package.get("name", "")), str(package.get("version", ""))
        if _RUNTIME.fullmatch(name) and (found := re.match(r"\d{1,2}\.\d{1,2}", version)):
            return found[0]
        if found := _NAMED.match(name):
            named = found[1]
    return named

"""The kernelspecs an image holds, read from its squashfs without running anything.

Format: https://jupyter-client.readthedocs.io/en/stable/kernels.html#kernel-specs
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from string import Template
from typing import TYPE_CHECKING, Any

from hpcbinder import contract
from hpcbinder.errors import ConvertError
from hpcbinder.model import Kernel
from hpcbinder.register.foreign import ipykernel, kernel_dirs
from hpcbinder.text import one_line

if TYPE_CHECKING:
    from hpcbinder.squashfs import Image

_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_SPEC_LIMIT = 256 << 10
_MOST_KERNELS = 64
_DEEPEST = 32
"""Levels of metadata: what nests deeper only serves to break whoever reads it."""


def image_kernels(image: Image, env: Mapping[str, str] | None = None, *, foreign: bool = False) -> tuple[Kernel, ...]:
    """The kernels an image holds; of two with the same name the first one on Jupyter's path counts.

    A kernelspec that Jupyter could not use (no kernel.json, no argv, wrong types) is left out, as Jupyter does.

    Args:
        image: The image's squashfs, opened.
        env: The image's own environment, for `${NAME}` in a kernelspec's `env`.
        foreign: It is none of ours: its environment tells where to look, and a Python that has ipykernel is a kernel
            also without a kernelspec.

    Raises:
        ConvertError: The image is damaged.
    """
    found: dict[str, Kernel] = {}
    for folder in kernel_dirs(image, env or {}) if foreign else contract.KERNEL_DIRS:
        node = image.lookup(folder, follow=True)
        if node is None or node.kind != "directory":
            continue
        for name in image.listdir(folder, follow=True):
            if _NAME.fullmatch(name) and name.lower() not in found and len(found) < _MOST_KERNELS:
                kernel = _kernel(image, folder, name, env or {})
                if kernel is not None:
                    found[name.lower()] = kernel
    if not found and foreign and (kernel := ipykernel(image, env or {})) is not None:
        return (kernel,)
    return tuple(found.values())


def _kernel(image: Image, folder: str, name: str, env: Mapping[str, str]) -> Kernel | None:
    path = f"{folder}/{name}/kernel.json"
    node = image.lookup(path, follow=True)
    if node is None or node.kind != "file" or node.size > _SPEC_LIMIT:
        return None
    try:
        spec = json.loads(image.read(path, _SPEC_LIMIT, follow=True))
    except ConvertError:
        raise
    except (ValueError, RecursionError):
        return None
    if not isinstance(spec, dict) or not _words(spec.get("argv")):
        return None
    places = {"resource_dir": f"{folder}/{name}", "prefix": contract.SERVER_PREFIX}
    argv = tuple(re.sub(r"\{(resource_dir|prefix)\}", lambda m: places[m[1]], word) for word in spec["argv"])
    return Kernel(
        name=name.lower(),
        display_name=_line(spec.get("display_name"), name),
        language=_line(spec.get("language"), "").lower(),
        argv=argv,
        env=_env(spec.get("env"), env),
        interrupt_mode="message" if spec.get("interrupt_mode") == "message" else "signal",
        metadata=_metadata(spec.get("metadata")),
    )


def _metadata(value: Any) -> dict[str, Any]:
    """What may be passed on to front ends: nothing that says how a kernel is started on the host (`kernel_provisioner`,
    jupyter_client/kernelspec.py), and nothing that JSON proper has no form for."""
    if not isinstance(value, dict) or not _fits(value, _DEEPEST):
        return {}
    return {key: item for key, item in value.items() if key != "kernel_provisioner"}


def _fits(value: Any, depth: int) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if not isinstance(value, (dict, list)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_fits(item, depth - 1) for item in inner)


def _words(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(word, str) and "\0" not in word for word in value)


def _line(value: Any, default: str) -> str:
    return one_line(value, 200).strip() or default if isinstance(value, str) else default


def _env(value: Any, image_env: Mapping[str, str]) -> dict[str, str]:
    """jupyter_client fills `${NAME}` from the front end's environment; here the image's is the one that is meant."""
    if not isinstance(value, dict):
        return {}
    return {
        name: Template(text).safe_substitute(image_env)
        for name, text in value.items()
        if isinstance(text, str) and "\0" not in text and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
    }

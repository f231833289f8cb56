"""What a converted image says of itself: the metadata that are inside its squashfs.

Read as Apptainer leaves it in `/.singularity.d` (internal/pkg/build/sources/base_environment.go), and as Charliecloud
reads `/ch/environment` (ch-run(1)). The image may be a stranger's: sizes and numbers are bounded, links stay inside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hpcbinder.convert.metadata import RUNSCRIPT, Metadata, describe
from hpcbinder.image import parse_config
from hpcbinder.model import ImageConfig
from hpcbinder.squashfs import Image

_FOLDER = "/.singularity.d"
_SCRIPT = re.compile(r"10-docker.*\.sh|9.*-environment\.sh", re.DOTALL)
_SCRIPTS = 200
_LIMIT = 1 << 20
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_metadata(image: Image, config: ImageConfig, labels: Mapping[str, str]) -> Metadata:
    """What the runtimes are told about an image, from inside it; from its configuration where it says nothing.

    Args:
        labels: Added to the image's own, winning over them.

    Raises:
        ConvertError: The image is damaged.
    """
    known = describe(config, labels, config.digest)
    return replace(
        known,
        deffile=_default(_text(image, f"{_FOLDER}/Singularity"), known.deffile),
        labels={**known.labels, **read_labels(image), **labels},
        environment=_scripts(image) or known.environment,
        runscript=_default(_text(image, RUNSCRIPT), known.runscript),
        charliecloud=_default(_text(image, "/ch/environment"), known.charliecloud),
        lost={},
    )


def read_config(image: Image, *, architecture: str, digest: str, given: Mapping[str, Any] | None = None) -> ImageConfig:
    """What an image is, as far as it can be told without the configuration it was made from.

    Args:
        architecture: OCI name.
        digest: `sha256:…` that stands for it.
        given: The `config` part of its configuration (OCI image spec, config.md), as a SIF may hold it; without it
            variables are those of `/ch/environment`, and what it runs is its run script.

    Raises:
        ConvertError: The image is damaged, or `given` is no such configuration.
    """
    if given is None:
        given = {
            "Env": _variables(_text(image, "/ch/environment") or ""),
            "Entrypoint": [RUNSCRIPT] if _text(image, RUNSCRIPT) is not None else [],
            "Labels": read_labels(image),
        }
    whole = {"architecture": architecture, "config": given}
    return replace(parse_config(json.dumps(whole).encode()), digest=digest)


def read_labels(image: Image) -> dict[str, str]:
    """The labels inside an image; none where they cannot be read.

    Raises:
        ConvertError: The image is damaged.
    """
    try:
        found = json.loads(_text(image, f"{_FOLDER}/labels.json") or "{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str) and "\0" not in name + value}


def _scripts(image: Image) -> dict[str, str]:
    """Path -> script that sets the image's variables: those that `apptainer inspect` shows (its
    cmd/internal/cli/inspect.go)."""
    place = image.locate(f"{_FOLDER}/env")
    node = image.lookup(place) if place is not None else None
    if place is None or node is None or node.kind != "directory":
        return {}
    scripts = {}
    for name in [name for name in image.listdir(place) if _SCRIPT.fullmatch(name)][:_SCRIPTS]:
        text = _text(image, f"{_FOLDER}/env/{name}")
        if text is not None:
            scripts[f"{_FOLDER}/env/{name}"] = text
    return scripts


def _variables(text: str) -> list[str]:
    """The lines of `/ch/environment`; quotes that Charliecloud would take away are taken away."""
    found = []
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if equals and _VARIABLE.fullmatch(name):
            quoted = len(value) >= 2 and value[0] == value[-1] == "'"
            found.append(f"{name}={value[1:-1] if quoted else value}")
    return found


def _text(image: Image, path: str) -> str | None:
    node = image.lookup(path, follow=True)
    if node is None or node.kind != "file" or node.size > _LIMIT:
        return None
    return image.read(path, _LIMIT, follow=True).decode("utf-8", "replace").replace("\0", "")


def _default(text: str | None, other: str) -> str:
    return other if text is None else text

"""Workers that may be asked for from inside an image: what each kind is started with, and nothing else.

Facts checked against distributed 2026.8 and ipyparallel 9.2: a certificate or key that has line ends is the thing
itself, not a path (distributed/security.py), also where the configuration comes from variables (dask/config.py); an
engine takes its connection from IPP_CONNECTION_INFO (ipyparallel/engine/app.py). So no key is in an argument.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..asked import fault
from ..values import LaunchError

_PATH = r"/[^\x00-\x1f\x7f]{1,1000}"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
_PEM = r"(-----BEGIN [A-Z ]{1,40}-----\n[A-Za-z0-9+/=\n]{1,20000}\n-----END [A-Z ]{1,40}-----\n?){1,4}"
_NUMBER = r"[1-9][0-9]{0,14}"
_DASK = {
    "python": _PATH,
    "scheduler": r"tls://([A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]):[0-9]{1,5}",
    "name": _NAME,
    "threads": _NUMBER,
    "memory": rf"{_NUMBER}|auto",
    "authority": _PEM,
    "certificate": _PEM,
    "key": _PEM,
}
_ENGINES = {"python": _PATH, "cluster": _NAME, "connection": r"\{[^\x00-\x1f\x7f]{1,8000}\}"}

_GIVES_UP = 60
"""Seconds without a scheduler after which a worker ends."""


@dataclass(frozen=True)
class Worker:
    """What one task of a job runs inside the image.

    Attributes:
        argv: Program (its path inside) and arguments.
        secrets: Variables that nobody else may see.
    """

    argv: tuple[str, ...]
    secrets: Mapping[str, str]


def worker(kind: str, values: object) -> Worker:
    """What a request asks to start.

    Args:
        kind: dask or ipyparallel.
        values: Name -> text, all of them.

    Raises:
        LaunchError: There is no such kind, or a value cannot be meant.
    """
    if kind not in _KINDS:
        raise LaunchError(f"there are no workers of the kind {ascii(kind)[:80]}")
    rules, make = _KINDS[kind]
    if not isinstance(values, Mapping) or values.keys() != rules.keys():
        raise LaunchError(f"workers of the kind {kind} are described by {', '.join(rules)}")
    for name, pattern in rules.items():
        value = values[name]
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise LaunchError(f"not a {name} of {kind} workers")
    return make(values)


def asked_for(values: object, otherwise: Mapping[str, str]) -> dict[str, Any]:
    """What a job of workers is asked for.

    Args:
        values: As `asked.fault` knows them.
        otherwise: What counts where they say nothing.

    Raises:
        LaunchError: A value cannot be meant.
    """
    if not isinstance(values, Mapping):
        raise LaunchError("what a job is asked for is an object")
    given = {**otherwise, **{name: value for name, value in values.items() if value not in ("", 0)}}
    asked = {"tasks": 1, **given}
    for name, value in asked.items():
        if wrong := fault(str(name), value):
            raise LaunchError(f"{ascii(value)[:80]} {wrong}")
    return asked


def _dask(values: Mapping[str, str]) -> Worker:
    return Worker(
        (
            *(values["python"], "-m", "distributed.cli.dask_worker", values["scheduler"], "--name", values["name"]),
            *("--nthreads", values["threads"], "--memory-limit", values["memory"]),
            # It would show what is computed to whoever asks.
            *("--no-dashboard", "--death-timeout", str(_GIVES_UP)),
        ),
        {
            "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": values["authority"],
            "DASK_DISTRIBUTED__COMM__TLS__WORKER__CERT": values["certificate"],
            "DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY": values["key"],
        },
    )


def _engines(values: Mapping[str, str]) -> Worker:
    try:
        json.loads(values["connection"])
    except (ValueError, RecursionError):
        raise LaunchError("not a connection of ipyparallel workers") from None
    return Worker(
        (values["python"], "-m", "ipyparallel.engine"),
        # Not IPP_PROFILE_DIR: the notebook's may be in a folder of its node alone. An engine makes one of its own.
        {"IPP_CLUSTER_ID": values["cluster"], "IPP_CONNECTION_INFO": values["connection"]},
    )


_KINDS: Mapping[str, tuple[Mapping[str, str], Callable[[Mapping[str, str]], Worker]]] = {
    "dask": (_DASK, _dask),
    "ipyparallel": (_ENGINES, _engines),
}

"""Keys of what people are offered: environments of a hub, modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcbinder.config.values import Spec, matching, one_of, read_flag, read_path

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.@%+-]*"
_FEATURES = r"[A-Za-z0-9_][A-Za-z0-9_.&|*()\[\]-]*"
_NUMBER = r"[0-9]{1,8}"
_TIME = r"[0-9]+(:[0-9]{1,2}){0,2}|[0-9]+-[0-9]{1,2}(:[0-9]{1,2}){0,2}"
_MEMORY = r"[0-9]+[KMGTkmgt]?"


def _setting(spec: Spec, default: Any = None) -> Any:
    return field(default=default, metadata={"spec": spec})


def _names(doc: str, pattern: str = _NAME) -> Any:
    return _setting(Spec("list", doc, matching(pattern, "a name"), separator=","), ())


def _most(kind: str, doc: str, pattern: str, default: str | None = None) -> Any:
    what = "a number" if pattern == _NUMBER else f"a {kind}"
    return _setting(Spec("text", doc, matching(pattern, what), optional=True), default)


@dataclass(frozen=True)
class JupyterhubConfig:
    """What people may ask a hub for (docs/jupyterhub-environments.md). Slurm's own limits hold besides."""

    own: bool = _setting(
        Spec(
            "true or false",
            "Each person is also offered the images of their own store, which are looked up as that person.",
            read_flag,
        ),
        False,
    )
    partitions: tuple[str, ...] = _names(
        "Partitions that may be chosen, the first by default; all where none is named."
    )
    accounts: tuple[str, ...] = _names(
        "Accounts that may be charged; where none is named, those that Slurm's accounting has for a person."
    )
    qos: tuple[str, ...] = _names("Qualities of service that may be chosen; likewise.")
    reservations: tuple[str, ...] = _names("Reservations that may be chosen; all where none is named.")
    constraints: tuple[str, ...] = _names(
        "Features of nodes that may be asked for, each as it is to be written; all where none is named.", _FEATURES
    )
    max_nodes: str = _most("number", "Nodes of a server's job, at most.", _NUMBER, "1")
    max_cpus: str | None = _most("number", "Cores, at most.", _NUMBER)
    max_memory: str | None = _most(
        "size", "Memory on a node, at most (`64G`); asked for where nobody says how much.", _MEMORY
    )
    max_time: str | None = _most(
        "time", "How long a server may run (`8:00:00`); asked for where nobody says how long.", _TIME
    )
    max_gpus: str | None = _most("number", "GPUs, at most.", _NUMBER)
    defaults: Mapping[str, str] = field(
        default_factory=dict,
        metadata={
            "spec": Spec(
                "table of texts",
                'What a job asks for where neither the person nor the environment says it: `time = "1:00:00"`.',
                matching(r"[^\x00-\x1f\x7f]{1,200}", "a value"),
                separator=",",
                names=one_of(
                    *(
                        "partition",
                        "time",
                        "nodes",
                        "cpus",
                        "memory",
                        "gpus",
                        "account",
                        "qos",
                        "reservation",
                        "constraint",
                    )
                ),
                default_doc="none",
            )
        },
    )


@dataclass(frozen=True)
class ModulesConfig:
    """Environment modules (docs/modules.md)."""

    folder: Path | None = _setting(
        Spec(
            "path",
            "Folder that `register --module` writes modulefiles to, as `module use` names it; `modulefiles` in the "
            "store if not set.",
            read_path,
            optional=True,
        )
    )

"""What a hub offers: environments, and what may be asked for to run them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Environment:
    """An environment that a person may start.

    Attributes:
        id: Of its image.
        title: What people know it as.
        repository: Where it comes from; environments are grouped by it.
        ref: Branch, tag or commit of the repository.
        description: A sentence or two, "" for none.
        icon: A `data:` URL of a picture, "" for none.
        path: File to open first, relative to the repository; "" for none.
        resources: What a job asks for where a person says nothing: fields of `hpcbinder.scheduler.Resources`.
        own: It lies in the person's own store, and is to be read as that person.
    """

    id: str
    title: str
    repository: str
    ref: str = ""
    description: str = ""
    icon: str = ""
    path: str = ""
    resources: Mapping[str, str | int] = field(default_factory=dict)
    own: bool = False


@dataclass(frozen=True)
class Site:
    """What people may ask for. The batch system has its own limits besides, and the last word.

    Attributes:
        partitions: Those that may be chosen, the first one by default; None for any.
        accounts: Those that may be charged; None for any that the batch system lets a person charge.
        qos: Likewise.
        reservations: Likewise.
        constraints: Features of nodes that may be asked for, each as it is written; None for any.
        nodes: At most.
        cpus: At most; None for no limit.
        memory: At most, on each node (`64G`); None for no limit. Asked for where nobody says how much, for the batch
            system may then give a whole node's.
        time: At most (`8:00:00`); None for no limit. Asked for where nobody says how long.
        gpus: At most; None for no limit.
        defaults: What a job asks for where neither the person nor the environment says it: fields of
            `hpcbinder.scheduler.Resources`.
    """

    partitions: tuple[str, ...] | None = None
    accounts: tuple[str, ...] | None = None
    qos: tuple[str, ...] | None = None
    reservations: tuple[str, ...] | None = None
    constraints: tuple[str, ...] | None = None
    nodes: int = 1
    cpus: int | None = None
    memory: str | None = None
    time: str | None = None
    gpus: int | None = None
    defaults: Mapping[str, str | int] = field(default_factory=dict)

"""The page on which a person chooses an environment and what its server may use.

HTML from the hub's own machine, without a script: it works by keyboard, in a reader's voice, and where scripts are
off. Every text in it may be a stranger's; Jinja escapes them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from hpcbinder.jupyterhub.environment import Environment, Site
from hpcbinder.jupyterhub.offer import Offer
from hpcbinder.scheduler import Partition

if TYPE_CHECKING:
    from jinja2 import Template

_FIRST = ("partition", "time", "cpus", "memory", "gpus")
_MORE = ("account", "qos", "reservation", "constraint", "nodes")
_NAMES = ("environment", "path", "reset", *_FIRST, *_MORE)
_LONGEST = 1000


@dataclass(frozen=True)
class _Field:
    label: str
    empty: str
    hint: str = ""
    choices: Sequence[tuple[str, str]] = ()
    least: int = 0
    most: int | None = None


def form(offer: Offer, said: object = None, *, job: bool = True) -> str:
    """The inside of the form.

    Args:
        offer: What may be chosen.
        said: What was said before, as `Options.parse` takes it, right or wrong: a person corrects it.
        job: The server is a job, that asks for resources.
    """
    environments = sorted(
        offer.environments.values(), key=lambda each: (each.own, each.repository, each.title, each.id)
    )
    groups: dict[str, list[Environment]] = {}
    for each in environments:
        groups.setdefault(each.repository, []).append(each)
    chosen = _chosen(said)
    if len(environments) == 1:
        chosen["environment"] = environments[0].id
    fields = _fields(offer) if job else {}
    return _template().render(
        offer=offer,
        groups=list(groups.items()),
        asks={each.id: _asks(each.resources) for each in environments}
        if job
        else {each.id: "" for each in environments},
        chosen=chosen,
        fields=fields,
        first=[name for name in _FIRST if name in fields],
        more=[name for name in _MORE if name in fields],
        opened=any(chosen[name] for name in _MORE),
    )


def _chosen(said: object) -> dict[str, str]:
    """What is shown as chosen: one text for each name that is known, however it came."""
    chosen = dict.fromkeys(_NAMES, "")
    for name, value in (said if isinstance(said, Mapping) else {}).items():
        only = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
        if name in chosen and isinstance(only, (str, int)) and only is not False:
            chosen[name] = str(only)[:_LONGEST].encode(errors="replace").decode()
    if chosen["reset"].lower() not in ("true", "on", "1", "yes"):
        chosen["reset"] = ""
    return chosen


def _fields(offer: Offer) -> dict[str, _Field]:
    site = offer.site
    fields = {
        "partition": _Field(
            "Partition",
            _usual(site, "partition"),
            choices=_partitions(offer.partitions, site.partitions),
        ),
        "time": _Field("Time", _usual(site, "time"), _limit("Minutes, or H:MM:SS", site.time)),
        "cpus": _number("Cores", _usual(site, "cpus"), 1, site.cpus),
        "memory": _Field("Memory", _usual(site, "memory"), _limit("Such as 8G", site.memory)),
        "gpus": _gpus(offer.partitions, site),
        "account": _Field("Account", _usual(site, "account"), choices=_plain(site.accounts)),
        "qos": _Field("Quality of service", _usual(site, "qos"), choices=_plain(site.qos)),
        "reservation": _Field("Reservation", "none", choices=_plain(site.reservations)),
        "constraint": _Field("Features of the node", "any", choices=_plain(site.constraints)),
        "nodes": _number("Nodes", "1", 1, site.nodes),
    }
    offered = {"account": site.accounts, "qos": site.qos, "partition": site.partitions}
    nothing = {name for name, values in offered.items() if values == ()}
    if site.nodes == 1:
        nothing.add("nodes")
    if site.gpus == 0:
        nothing.add("gpus")
    return {name: field for name, field in fields.items() if name not in nothing}


def _gpus(partitions: Sequence[Partition], site: Site) -> _Field:
    kinds = sorted({kind for each in partitions for kind in each.gpus or {} if kind})
    named = f"; of a type: {', '.join(f'{kind}:1' for kind in kinds)}" if kinds else ""
    limit = f", at most {site.gpus}" if site.gpus is not None else ""
    return _Field("GPUs", _usual(site, "gpus"), f"A number{limit}{named}")


def _number(label: str, empty: str, least: int, most: int | None) -> _Field:
    return _Field(label, empty, least=least, most=10_000 if most is None else most)


def _partitions(known: Sequence[Partition], allowed: Sequence[str] | None) -> list[tuple[str, str]]:
    said = {each.name: each for each in known}
    names = list(said) if allowed is None else list(allowed)
    return [(name, _about(said[name]) if name in said else name) for name in names]


def _about(partition: Partition) -> str:
    """`gpu (up to 2-00:00:00, 64 cores, 512 GB, 4 GPUs a100)`."""
    about = []
    if partition.time:
        about.append(f"up to {partition.time}")
    if partition.cpus:
        about.append(f"{partition.cpus} cores")
    if partition.memory:
        about.append(f"{partition.memory // 1024} GB" if partition.memory >= 1024 else f"{partition.memory} MB")
    for kind, number in (partition.gpus or {}).items():
        about.append(f"{number} GPU{'s' * (number != 1)} {kind}".rstrip())
    return f"{partition.name} ({', '.join(about)})" if about else partition.name


def _plain(names: Sequence[str] | None) -> list[tuple[str, str]]:
    return [(name, name) for name in names or ()]


def _usual(site: Site, name: str) -> str:
    value = site.defaults.get(name)
    return f"{value} (default)" if value else "default"


def _limit(hint: str, most: str | None) -> str:
    return f"{hint}; at most {most}" if most else hint


def _asks(wanted: Mapping[str, str | int]) -> str:
    words = {
        "cpus": "{} cores",
        "memory": "{} of memory",
        "gpus": "{} GPUs",
        "time": "a time of {}",
        "partition": "partition {}",
        "nodes": "{} nodes",
        "account": "account {}",
        "qos": "quality of service {}",
        "reservation": "reservation {}",
        "constraint": "nodes with {}",
    }
    return ", ".join(text.format(wanted[name]) for name, text in words.items() if wanted.get(name))


@cache
def _template() -> Template:
    from jinja2 import Environment as Jinja
    from jinja2 import StrictUndefined

    jinja = Jinja(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    return jinja.from_string(resources.files("hpcbinder.jupyterhub").joinpath("form.html").read_text(encoding="utf-8"))

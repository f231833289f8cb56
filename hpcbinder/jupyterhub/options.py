"""What a person asks of the hub, checked by one model whichever way it comes.

JupyterHub hands on what a form or a link says as lists of strings, and the JSON of its REST API as it is (jupyterhub
`handlers/pages.py`, `apihandlers/users.py`); only `Spawner.apply_user_options` sees all three. All of it is a
stranger's. What comes out is of few characters (`hpcbinder.scheduler.Resources` says which) and holds nothing that the
site does not offer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo, model_validator

from hpcbinder.errors import UsageError
from hpcbinder.jupyterhub.environment import Environment, Site
from hpcbinder.register import repository_path
from hpcbinder.scheduler import Resources, gpu_count, mebibytes, seconds
from hpcbinder.text import one_line

_LONGEST = 1000
_MOST = 64
"""Keys that are looked at."""
_WORDS = {"on": True, "true": True, "1": True, "yes": True, "off": False, "false": False, "0": False, "no": False}
_CHOICES = {
    "partition": ("partitions", "partition"),
    "account": ("accounts", "account"),
    "qos": ("qos", "quality of service"),
    "reservation": ("reservations", "reservation"),
    "constraint": ("constraints", "constraint"),
}
_NAMES = ("partition", "time", "nodes", "cpus", "memory", "gpus", "account", "qos", "reservation", "constraint")


def _text(value: object) -> object:
    # A number of minutes, of MiB or of GPUs is a number in JSON.
    if type(value) is int and 0 <= value < 10**9:
        return str(value)
    if not isinstance(value, str):
        raise ValueError("must be text")
    if len(value) > _LONGEST:
        raise ValueError("is too long")
    return value


def _count(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,8}", value, re.ASCII):
        return int(value)
    if type(value) is not int:
        raise ValueError("must be a whole number")
    return value


def _flag(value: object) -> object:
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    if type(value) is not bool:
        raise ValueError("must be true or false")
    return value


def _path(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("must be text")
    try:
        return repository_path(value)
    except UsageError as error:
        raise ValueError(error.message.removeprefix("a path ")) from None


_Text = Annotated[str, BeforeValidator(_text)]
_Count = Annotated[int, BeforeValidator(_count)]
_Flag = Annotated[bool, BeforeValidator(_flag)]
_Path = Annotated[str, BeforeValidator(_path)]


class Options(BaseModel):
    """What a person asks for; "" and 0 leave it to the environment, then to the site.

    Attributes:
        environment: Id of one that the hub offers to this person.
        path: File to open in JupyterLab, relative to the repository.
        reset: Begin with a fresh copy of the repository.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    environment: _Text
    partition: _Text = ""
    time: _Text = ""
    nodes: _Count = 0
    cpus: _Count = 0
    memory: _Text = ""
    gpus: _Text = ""
    account: _Text = ""
    qos: _Text = ""
    reservation: _Text = ""
    constraint: _Text = ""
    path: _Path = ""
    reset: _Flag = False

    @model_validator(mode="after")
    def _offered(self, info: ValidationInfo) -> Options:
        environments, site = cast("tuple[Mapping[str, Environment], Site]", info.context)
        if self.environment not in environments:
            raise ValueError("there is no such environment, or it is not for you")
        try:
            resources(self, environments[self.environment], site)
        except UsageError as error:
            raise ValueError(error.message) from None
        return self

    def said(self) -> dict[str, Any]:
        """What was said, as JSON proper: `parse` makes the same of it."""
        return self.model_dump(exclude_defaults=True)


def parse(raw: object, environments: Mapping[str, Environment], site: Site) -> Options:
    """Check what a person asks for.

    Args:
        raw: From a form or a link (lists of one string) or from JSON (text, numbers, true and false). What is empty
            was not said.
        environments: What this person may start, by id.
        site: What may be asked for.

    Raises:
        UsageError: It is refused; the message is one sentence for that person.
    """
    if isinstance(raw, Mapping) and raw.keys() == {"user_options"} and isinstance(raw["user_options"], Mapping):
        # The REST API's envelope, which a JupyterHub before 6 hands on (apihandlers/users.py).
        raw = raw["user_options"]
    if not isinstance(raw, Mapping):
        raise UsageError("options are names with values")
    if len(raw) > _MOST:
        raise UsageError("these are too many options")
    said = {}
    for name, value in raw.items():
        if not isinstance(name, str):
            raise UsageError("options are names with values")
        only = _only(name, value)
        if only is not None and only != "":
            said[name] = only
    try:
        return Options.model_validate(said, context=(environments, site))
    except ValidationError as error:
        # Without the input, which pydantic's own text has in it.
        first = error.errors(include_url=False, include_input=False)[0]
    raise UsageError(_sentence(first)) from None


def resources(options: Options, environment: Environment, site: Site) -> Resources:
    """What the job asks for: what the person says, else the environment, else the site.

    Raises:
        UsageError: No job can ask for that, or the site does not let it.
    """
    asked: dict[str, Any] = {}
    for name in _NAMES:
        offered = environment.resources.get(name) or site.defaults.get(name)
        if value := getattr(options, name) or offered:
            asked[name] = value
    if site.partitions:
        asked.setdefault("partition", site.partitions[0])
    for name in ("time", "memory"):
        if limit := getattr(site, name):
            asked.setdefault(name, limit)
    wanted = Resources(**asked)
    for name, (offer, what) in _CHOICES.items():
        _within(getattr(wanted, name), getattr(site, offer), what)
    _at_most("nodes", wanted.nodes, site.nodes)
    _at_most("cores", wanted.cpus, site.cpus)
    _at_most("GPUs", gpu_count(wanted.gpus), site.gpus)
    if wanted.time and site.time and seconds(wanted.time) > seconds(site.time):
        raise UsageError(f"time: at most {site.time} here")
    if wanted.memory and site.memory and mebibytes(wanted.memory) > mebibytes(site.memory):
        raise UsageError(f"memory: at most {site.memory} here")
    # No GPU is what a person may say against the environment, and what Slurm is not told.
    return wanted if gpu_count(wanted.gpus) else Resources(**{**asked, "gpus": ""})


def _within(value: str, offered: tuple[str, ...] | None, what: str) -> None:
    if not value or offered is None or value in offered:
        return
    # Several partitions, or reservations, of which the scheduler takes one.
    if what in ("partition", "reservation") and all(part in offered for part in value.split(",")):
        return
    raise UsageError(f"'{one_line(value, 80)}' is no {what} that can be chosen here")


def _at_most(what: str, value: int, limit: int | None) -> None:
    if limit is not None and value > limit:
        raise UsageError(f"{what}: at most {limit} here" if limit else f"{what}: none here")


def _only(name: str, value: object) -> object:
    """A form says everything in lists."""
    if not isinstance(value, (list, tuple)):
        return value
    if len(value) != 1:
        raise UsageError(f"{one_line(name, 40)} must be said once")
    return cast("object", value[0])


def _sentence(error: Mapping[str, Any]) -> str:
    name = one_line(str(error["loc"][0]), 40) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        return f"there is no option '{name}'"
    if error["type"] == "missing":
        return "say which environment to start" if name == "environment" else f"{name} is missing"
    what = str(error.get("ctx", {}).get("error") or error["msg"])
    return f"{name} {what}" if name else what

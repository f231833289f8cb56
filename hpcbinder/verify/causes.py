"""What probably is behind an error: a table (`causes.toml`), looked through from its top."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

_LONGEST = 4000


@dataclass(frozen=True)
class Cause:
    """One line of the table.

    Attributes:
        error: Whole name of the error.
        message: Somewhere in its message.
        says: What it is, with `{N}` for groups of `message`.
    """

    error: re.Pattern[str]
    message: re.Pattern[str]
    says: str


def likely_cause(name: str, message: str) -> str:
    """The sentence that fits an error, "" for none."""
    for cause in _causes():
        if cause.error.fullmatch(name) and (found := cause.message.search(message[:_LONGEST])):
            return _filled(cause.says, found)
    return ""


def _filled(text: str, found: re.Match[str]) -> str:
    return re.sub(r"\{(\d)\}", lambda number: found[int(number[1])] or "", text)


def distribution(module: str) -> str:
    """What one installs for a module: the distribution's name, which mostly is the module's."""
    top = module.partition(".")[0]
    return str(_table()["distributions"].get(top, top))


def is_network(name: str, text: str) -> bool:
    """Whether an error says that there is no network.

    Args:
        name: Of the error.
        text: Its message, and what it followed from.
    """
    network = _table()["network"]
    return bool(re.fullmatch(network["names"], name) or re.search(network["messages"], text[-10 * _LONGEST :]))


@cache
def _table() -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
    text = resources.files("hpcbinder.verify").joinpath("causes.toml").read_text("utf-8")
    table: dict[str, Any] = tomllib.loads(text)
    return table


@cache
def _causes() -> tuple[Cause, ...]:
    return tuple(
        Cause(re.compile(line["error"]), re.compile(line["message"], re.S), line["says"]) for line in _table()["cause"]
    )

"""Which distribution brings a module: the tables beside this file, and what comes with Python itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpcbinder.plan import parse_toml


@dataclass(frozen=True)
class Also:
    """What code needs besides what it imports.

    Attributes:
        importing: Module whose importers need it.
        pattern: In their code, where they do.
        requirement: What they then need.
    """

    importing: str
    pattern: re.Pattern[str]
    requirement: str


@dataclass(frozen=True)
class Brought:
    """What is known of a module.

    Attributes:
        kind: `index`, `python` (comes with it), `kernel` (comes with that), `gone` (this Python does not have it),
            `own` (its name is that of authors' own files), `nowhere` or `unknown`.
        requirement: Of kind `index`: what brings it.
        text: Of kinds `gone` and `nowhere`: what to say.
    """

    kind: str
    requirement: str = ""
    text: str = ""


class Table:
    """The tables, for one version of Python.

    Args:
        modules: Text of modules.toml.
        standard: Text of stdlib.toml.
        python: `X.Y`.
    """

    def __init__(self, modules: str, standard: str, python: str) -> None:
        self._modules: dict[str, Any] = parse_toml(modules, "modules.toml")
        self._standard: dict[str, Any] = parse_toml(standard, "stdlib.toml")
        self._python = _number(python)
        self._same = frozenset(self._modules["same"])
        self._own = frozenset(self._modules["own"])
        self._kernel = frozenset(self._modules["kernel"])
        self._always = frozenset(self._standard["always"])
        self._two = frozenset(self._standard["two"])
        self._parted = {key.partition(".")[0] for key in self._modules["modules"] if "." in key}
        self.also = tuple(
            Also(entry["with"], re.compile(entry["pattern"], re.MULTILINE), entry["requirement"])
            for entry in self._modules["also"]
        )

    def brings(self, module: str) -> Brought:
        """What brings a module, by its full name."""
        top = module.partition(".")[0]
        if (found := self._longest(self._modules["nowhere"], module)) is not None:
            return Brought("nowhere", text=found)
        if top in ("__future__", "__main__") or (top.startswith("_") and top != "__builtin__"):
            return Brought("python")
        if (standard := self._in_python(top)) is not None:
            return standard
        if top in self._kernel:
            return Brought("kernel")
        if (found := self._longest(self._modules["modules"], module)) is not None:
            return Brought("index", found)
        if top in self._same:
            return Brought("index", top)
        return Brought("own" if top in self._own or len(top) < 3 else "unknown")

    def is_parted(self, top: str) -> bool:
        """Whether several distributions bring what lies below a module."""
        return top in self._parted

    def system(self, module: str, *, debian: bool) -> tuple[str, ...]:
        """Debian packages that a module needs.

        Args:
            debian: Python is Debian's.
        """
        top = module.partition(".")[0]
        names = ("system", "debian") if debian else ("system",)
        tables: list[Mapping[str, list[str]]] = [self._modules[name] for name in names]
        return tuple(dict.fromkeys(name for table in tables for name in table.get(top, ())))

    def _in_python(self, top: str) -> Brought | None:
        since, until = self._standard["since"].get(top), self._standard["until"].get(top)
        if top in self._always or top in self._two or since or until:
            there = top in self._always or top in self._two
            if top in self._two:
                there = self._python < (3, 0)
            elif since:
                there = self._python >= _number(since)
            elif until:
                there = self._python < _number(until)
            if there:
                return Brought("python")
            backport = self._standard["backports"].get(top)
            if backport:
                return Brought("index", backport)
            word = "Python 3 has it no more" if top in self._two else f"Python has it since {since}"
            return Brought("gone", text=f"Python has it no more since {until}" if until else word)
        return None

    @staticmethod
    def _longest(table: Mapping[str, str], module: str) -> str | None:
        name = module
        while name:
            if name in table:
                return table[name]
            name = name.rpartition(".")[0]
        return None


def _number(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor.partition(".")[0] or 0)

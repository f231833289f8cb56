"""Which line of the repository asked for what apt could not install."""

from __future__ import annotations

import re

from hpcbinder.errors import BuildError
from hpcbinder.model import Checkout, Plan
from hpcbinder.text import one_line

_LIMIT = 1 << 20
_MISSING = re.compile(
    r"no (?:package|version (?P<version>[A-Za-z0-9.+:~*-]+) of) '(?P<name>[a-z0-9+.-]+)' \((?P<hint>[^()]*)\)"
)
"""What buildpacks/apt/near.py says of each."""


def placed(error: BuildError, plan: Plan, checkout: Checkout) -> BuildError | None:
    """Of a build's error that is about Debian packages that are not there, one that says so alone, and on which line
    they are asked for; None of any other."""
    step, _, said = error.message.partition("hpcbinder: Debian has ")
    found = list(_MISSING.finditer(said)) if step.startswith("step apt/") else []
    if not found:
        return None
    suite = plan.base.suite
    told = []
    where = None
    for match in found:
        name, version = match["name"], match["version"]
        what = f"no version {version} of {name}" if version else f"no package '{name}'"
        at = line_of(f"{name}={version}" if version else name, plan, checkout)
        where = where or at
        told.append(f"{what}{f' ({at})' if at and at != where else ''}: {match['hint']}")
    first, *others = told
    message, _, hint = first.partition(": ")
    return BuildError(
        one_line(f"Debian {suite} has {message}", 400), where=where, hint=one_line("; ".join([hint, *others]), 1000)
    )


def line_of(word: str, plan: Plan, checkout: Checkout) -> str | None:
    """`file:line` of the word in a file of the repository that names Debian packages, None where it is in none.

    Args:
        word: `name` or `name=version`.
    """
    root = checkout.root.resolve()
    for decision in plan.decisions:
        path = (root / decision.file).resolve()
        if decision.pack != "apt" or not decision.used or not path.is_relative_to(root):
            continue
        try:
            with path.open("rb") as file:
                lines = file.read(_LIMIT).decode("utf-8", "replace").split("\n")
        except OSError:
            continue
        for number, line in enumerate(lines, start=1):
            if word in line.partition("#")[0].split():
                return f"{decision.file}:{number}"
    return None

"""What notebooks need beside a project that itself says what it depends on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property

from hpcbinder.plan import Described, DetectError, Inferred

_VARIANT = re.compile(r"(-(headless|binary|cpu|gpu|simd|contrib|nightly))+\Z")
"""Ends of names of packages that bring the same modules, of which there must be one."""


class Beside:
    """A project that is described, and what there is with it.

    Args:
        described: What is known of it.
    """

    def __init__(self, described: Described) -> None:
        self._described = described

    def bounded(self, name: str) -> str:
        """The requirement that the project has for a package without depending on it, "" if it does not name it."""
        return self._described.optional.get(name, "")

    def may_bring(self, module: str) -> bool:
        """Whether some package there sounds like a module (`python-foo` for `foo`).

        Args:
            module: Written as names of packages are.
        """
        sought = module.replace("-", "")
        return any(sought in name.replace("-", "") for name in self._there)

    def lacking(self, taken: Mapping[str, Inferred]) -> dict[str, Inferred]:
        """What of that would not be there: by its name, or as a variant of the same package."""
        rest = _without(taken, self._described.names)
        return _without(rest, self._there) if rest else {}

    def fits(self, taken: Iterable[Inferred], *, else_: bool) -> bool:
        """Whether there are versions that go together with what the project depends on.

        Args:
            else_: The answer where only the build will tell.
        """
        try:
            names = self._described.resolve([one.requirement for one in taken])
        except DetectError:
            return False
        return else_ if names is None else True

    @cached_property
    def _there(self) -> frozenset[str]:
        """Names of what is installed without notebooks being asked, as far as they are known."""
        try:
            return self._described.names | (self._described.resolve(()) or frozenset())
        except DetectError:
            # That nothing goes together without more is for the one to say who installs it.
            return self._described.names


def _without(taken: Mapping[str, Inferred], there: Iterable[str]) -> dict[str, Inferred]:
    same = {_VARIANT.sub("", name) for name in there}
    return {name: one for name, one in taken.items() if _VARIANT.sub("", name) not in same}

"""Environments that an engine keeps as images: made once, whichever repository asks for the same again.

They are named by what they are made of, so that whoever finds one may stand on it. Steps that ran code of some package
(an sdist's setup.py) may be in one: an engine's images belong to one person, or, with a Docker that root runs, to those
who could change anything there anyway. Names begin with `localhost/`, so that no engine asks a registry for one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hpcbinder.model import Plan
from hpcbinder.plan import apart_point, environment_fingerprint, environment_points

_NAME = "localhost/hpcbinder/env"


@dataclass
class Environment:
    """The points of a plan that images can stand for, and those that an engine has.

    Attributes:
        ready: Point -> tag of the image that has all up to there, of those looked for.
    """

    plan: Plan
    tags: dict[int, str]
    ready: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, server: str) -> Environment:
        """The environment of a plan.

        Args:
            server: Names the server image.
        """
        points = environment_points(plan)
        return cls(plan, {p: f"{_NAME}:{environment_fingerprint(plan, p, server)[:32]}" for p in points})

    def look(self, has: Callable[[str], bool]) -> None:
        """Find out what is there: the longest beginning, and what the steps after it stand on besides."""
        found = next((point for point in reversed(self.tags) if has(self.tags[point])), None)
        if found is not None:
            self.ready[found] = self.tags[found]
        for point in self._besides():
            if point not in self.ready and has(self.tags[point]):
                self.ready[point] = self.tags[point]

    def missing(self) -> list[int]:
        """Points to be made, in that order."""
        found = max(self.ready, default=0)
        return [point for point in self.tags if point not in self.ready and (point > found or point in self._besides())]

    def summary(self) -> str:
        """How much of it is there, for a person; "" if there is nothing to say."""
        found = max(self.ready, default=0)
        if not self.tags or not found:
            return ""
        end = max(self.tags)
        layers = [layer for lock in self.plan.locks for layer in lock.layers]
        # The first dependencies a plan installs are its locks, a step for each layer.
        had = sum(map(len, layers[: found - min(self.tags)]))
        total = sum(map(len, layers))
        if had:
            what = f"{total} package{'s' * (total != 1)}, {'all' if had == total else had} of them there already"
        else:
            what = f"{found} of {end} steps are there already"
        return f"environment: {what}"

    def _besides(self) -> set[int]:
        """Points that the steps still to be made stand on, apart from the line of steps."""
        found = max(self.ready, default=0)
        steps = enumerate(self.plan.steps[: max(self.tags, default=0)])
        wanted = {apart_point(self.plan, number) for number, step in steps if step.apart and number >= found}
        return wanted & self.tags.keys()

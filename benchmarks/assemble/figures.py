"""What is measured, as plain values that are kept as JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.assemble.equivalence import Equal

SEEN, UNSEEN = "seen", "unseen"


@dataclass(frozen=True)
class Figure:
    """One command's cost.

    Attributes:
        part: `seen` (a link to a kernel) or `unseen` (packages to an environment).
        tool: `hpcbinder`, `docker`, `apptainer`, `uv`.
        packages: How many there are.
        files: That these have, bytecode included; 0 where nobody counted.
        size: Bytes of what came out.
        wall: Seconds.
        cpu: CPU seconds of all processes but daemons.
        peak: Bytes resident at most, in all processes together (see `benchmarks.convert.meter`).
        merge: Seconds of `wall` that the merge took, where it was timed.
        own: Bytes resident at most in the process that squashes and merges, 0 where it was not asked.
        load: The machine's load average before.
    """

    part: str
    tool: str
    packages: int
    files: int
    size: int
    wall: float
    cpu: float
    peak: int
    merge: float
    own: int
    load: float


@dataclass(frozen=True)
class Courses:
    """What a store takes with images of courses that share most packages.

    Attributes:
        images: How many.
        alone: Bytes of their SIFs, one by one.
        layers: Bytes of the different layers that they were made of, the base and the server among them.
        used: Bytes that the store takes on its file system in the end, images and all.
        empty: Bytes that it took before the first image: the base, and what is downloaded once.
        file_system: Name of that, and whether it shares blocks (`XFS, reflinks`).
        walls: Seconds of each build.
    """

    images: int
    alone: int
    layers: int
    used: int
    empty: int
    file_system: str
    walls: list[float]


@dataclass
class Results:
    """All of a run.

    Attributes:
        machine: What it ran on and with.
        figures: In the order in which they were taken.
        courses: At most one.
        equal: Environments that were compared.
        left_out: What could not be measured here, and why.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    courses: list[Courses] = field(default_factory=list)
    equal: list[Equal] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def select(self, **values: object) -> list[Figure]:
        """The figures whose attributes have these values."""
        return [each for each in self.figures if all(getattr(each, name) == value for name, value in values.items())]

    def middle(self, of: Callable[[Figure], float], **values: object) -> float | None:
        """The median over the rounds, None if it was not measured."""
        found = [of(each) for each in self.select(**values)]
        return statistics.median(found) if found else None

    def keep(self, last: Results, parts: Iterable[str], environments: Iterable[str]) -> None:
        """Take over what another run found, but for what is measured now.

        Args:
            last: That run.
            parts: What is measured now: `seen`, `unseen`, `courses`, `check`.
            environments: Which are checked now, if `check` is among these.
        """
        # What was not seen is measured again as seen, where the merge alone is looked at.
        now = {"merge"} if "unseen" in parts else set()
        now |= {"hpcbinder", "docker", "apptainer"} if "seen" in parts else set()
        self.figures += [
            each
            for each in last.figures
            if not (each.part == UNSEEN and "unseen" in parts or each.part == SEEN and each.tool in now)
        ]
        self.courses += [] if "courses" in parts else last.courses
        again = set(environments) if "check" in parts else set()
        self.equal += [each for each in last.equal if each.name not in again]

    def write(self, path: Path, claims: Iterable[Any] = ()) -> None:
        """Keep it, with what is claimed on its ground."""
        value = {**dataclasses.asdict(self), "claims": [dataclasses.asdict(claim) for claim in claims]}
        path.write_text(json.dumps(value, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """What `write` kept."""
        value = json.loads(path.read_text())
        return cls(
            machine=value["machine"],
            figures=[Figure(**each) for each in value["figures"]],
            courses=[Courses(**each) for each in value["courses"]],
            equal=[Equal(**each) for each in value["equal"]],
            left_out=value["left_out"],
        )


def wall(figure: Figure) -> float:
    """Its seconds."""
    return figure.wall

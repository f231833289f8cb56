"""What is measured, as plain values that are kept as JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GZIP, ZSTD = "gzip", "zstd"


@dataclass(frozen=True)
class Figure:
    """One command's cost.

    Attributes:
        tool: `hpcbinder`, `apptainer` or `mksquashfs`.
        image: Its name in `images`.
        source: `oci`, `tar` for a layout whose layers are not compressed, `docker`, `podman`, or `tree` for what umoci
            unpacked.
        compression: `gzip` or `zstd`.
        cached: `nothing`, or `all but the top` layer.
        wall: Seconds.
        cpu: CPU seconds of all processes but daemons.
        daemon_cpu: CPU seconds of Docker's daemons meanwhile.
        peak: Bytes resident at most (see `meter`).
        size: Bytes of the file that came out.
        load: The machine's load average before.
    """

    tool: str
    image: str
    source: str
    compression: str
    cached: str
    wall: float
    cpu: float
    daemon_cpu: float
    peak: int
    size: int
    load: float


@dataclass(frozen=True)
class Start:
    """How long Python took to start and to import numpy, from one SIF.

    Attributes:
        tool: Whose SIF: `hpcbinder` or `apptainer`.
        compression: `gzip` or `zstd`.
        size: Bytes of the SIF.
        walls: Seconds of each start, the file in the page cache.
        cold: Seconds of each start after the file was dropped from the page cache.
    """

    tool: str
    compression: str
    size: int
    walls: list[float]
    cold: list[float]


@dataclass
class Results:
    """All of a run.

    Attributes:
        machine: What it ran on and with.
        images: Name -> what is in it (`layouts.Contents`).
        figures: In the order in which they were taken.
        starts: Of SIFs.
        left_out: What could not be measured here, and why.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    images: dict[str, dict[str, int]] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def select(self, **values: str) -> list[Figure]:
        """The figures whose attributes have these values."""
        return [each for each in self.figures if all(getattr(each, name) == value for name, value in values.items())]

    def middle(self, of: Callable[[Figure], float], **values: str) -> float | None:
        """The median over the rounds, None if it was not measured."""
        found = [of(each) for each in self.select(**values)]
        return statistics.median(found) if found else None

    def start(self, tool: str, compression: str) -> Start | None:
        """The starts of one SIF."""
        return next((each for each in self.starts if (each.tool, each.compression) == (tool, compression)), None)

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
            images=value["images"],
            figures=[Figure(**each) for each in value["figures"]],
            starts=[Start(**each) for each in value["starts"]],
            left_out=value["left_out"],
        )


def cpu(figure: Figure) -> float:
    """CPU seconds, with the daemons' where the image came from them; otherwise those were somebody else's."""
    return figure.cpu + (figure.daemon_cpu if figure.source == "docker" else 0.0)

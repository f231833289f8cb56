"""Steps that have to be run in an image whose other steps are data: what one changed is a layer like any other."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from hpcbinder.builders.assembling.layer import Layer
from hpcbinder.builders.assembling.venv import venv_maker
from hpcbinder.contract import EPOCH
from hpcbinder.errors import BuildError
from hpcbinder.image import OciImage
from hpcbinder.model import Checkout, ImageConfig, Plan, fingerprint
from hpcbinder.plan import write_step

_DAMAGED = (tarfile.TarError, ValueError, OverflowError)
"""What Python's tarfile raises of headers that nobody writes by accident."""
_FORM = 1
"""Counted up when what a step finds, or what is taken over of what it made, becomes another."""


@dataclass(frozen=True)
class Ready:
    """A step that can be run.

    Attributes:
        number: Of the step in its plan.
        config: What the image is so far; of the variables those that the step sees.
        base: What the image stands on, its layers as tars.
        layers: All squashed layers so far, the base's first.
        identity: `sha256:…` of all that what it makes depends on.
    """

    number: int
    config: ImageConfig
    base: OciImage
    layers: tuple[Layer, ...]
    identity: str


class StepRunner(Protocol):
    """Runs steps of one plan."""

    @property
    def name(self) -> str:
        """Who runs them: `apptainer`, `docker`, …"""

    @property
    def is_engine(self) -> bool:
        """Whether it is one (hpcbinder.engine)."""

    def run(self, ready: Ready) -> Path:
        """Run a step.

        Returns:
            A new tar of what it changed: a layer as the OCI image spec has it.

        Raises:
            BuildError: The step failed, or who runs it.
            ConvertError: A layer is damaged, or a file cannot be written.
        """

    def close(self) -> None:
        """Take away what only its steps needed."""


def step_identity(plan: Plan, checkout: Checkout, number: int, config: ImageConfig, below: Sequence[Layer]) -> str:
    """What names the layer of a step that is run: `sha256:…` of all that it may depend on, but for the network.

    Args:
        config: See `Ready`.
        below: The layers it stands on.

    Raises:
        BuildError: A file changed since the plan was made, or cannot be read.
    """
    step = plan.steps[number]
    reads = _Digest()
    # Only who gets files of the repository sees when they were changed.
    timestamp = None if step.reads else EPOCH
    write_step(plan, checkout, number, cast(BinaryIO, reads), folder="step", timestamp=timestamp)
    # The tools that a step finds are those that make environments.
    seen = [sorted(config.env.items()), step.apart, step.image, step.runs_repository_code, venv_maker()]
    return f"sha256:{fingerprint([_FORM, reads.hexdigest(), seen, [layer.identity for layer in below]])}"


class _Digest:
    def __init__(self) -> None:
        self._sum = hashlib.sha256()

    def write(self, raw: bytes) -> int:
        self._sum.update(raw)
        return len(raw)

    def hexdigest(self) -> str:
        return self._sum.hexdigest()


def only_apart(tar: Path, folders: Collection[str], out: BinaryIO) -> None:
    """Write of a layer's tar what lies in some folders, and nothing that takes away (see `plan.apart`).

    Args:
        folders: Absolute paths.

    Raises:
        BuildError: The tar is damaged.
        OSError: It cannot be read, or `out` not be written.
    """
    wanted = tuple(f"{folder.strip('/')}/" for folder in folders)
    _copied(tar, out, lambda name: f"{name}/".startswith(wanted) and not name.rpartition("/")[2].startswith(".wh."))


def without(tar: Path, folder: str, out: BinaryIO) -> None:
    """Write of a layer's tar all but a folder: what was mounted there is no part of the layer.

    Args:
        folder: Absolute path.

    Raises:
        BuildError: The tar is damaged.
        OSError: It cannot be read, or `out` not be written.
    """
    path = folder.strip("/")
    parent, _, name = path.rpartition("/")

    def wanted(each: str) -> bool:
        if f"{path}/".startswith(f"{each}/"):
            return False  # the folder, and those above it: of the time when it was mounted
        return not each.startswith(f"{path}/") and each != f"{parent}/.wh.{name}"

    _copied(tar, out, wanted)


def only_below(tar: Path, folder: str, to: Path, largest: int = 8 << 30) -> None:
    """Put the plain files that a layer's tar has directly in a folder into one here; whoever made them is a stranger.

    Args:
        folder: Absolute path.
        to: Empty folder.
        largest: Bytes that a file may have.

    Raises:
        BuildError: The tar is damaged, or a file cannot be written.
    """
    path = folder.strip("/")
    try:
        with tarfile.open(tar, "r:", encoding="utf-8", errors="surrogateescape") as source:
            for member in source:
                parent, _, name = member.name.removeprefix("./").lstrip("/").rpartition("/")
                if member.isreg() and parent == path and name not in ("", ".", ".."):
                    if member.size > largest:
                        raise BuildError(f"what a step made has more than {largest >> 30} GiB", where=name)
                    file = source.extractfile(member)
                    assert file is not None
                    with (to / name).open("xb") as out:
                        shutil.copyfileobj(file, out, 1 << 20)
                cast(Any, source).members.clear()  # which would only grow
    except _DAMAGED as error:
        raise BuildError("what a step made is no tar, or a damaged one", where=str(tar)) from error
    except OSError as error:
        raise BuildError(f"what a step made cannot be kept: {error.strerror}", where=str(to)) from error


def _copied(tar: Path, out: BinaryIO, wanted: Callable[[str], bool]) -> None:
    try:
        with (
            tarfile.open(tar, "r:", encoding="utf-8", errors="surrogateescape") as source,
            tarfile.open(
                fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
            ) as target,
        ):
            for member in source:
                if wanted(member.name.removeprefix("./").lstrip("/")):
                    target.addfile(member, source.extractfile(member) if member.isreg() else None)
                cast(Any, source).members.clear()  # which would only grow
    except _DAMAGED as error:
        raise BuildError("what a step made is no tar, or a damaged one", where=str(tar)) from error
